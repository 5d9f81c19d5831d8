package main

import (
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

// echo answers as the backends do, with fill in turn, and as fault says.
type echo struct {
	turn  atomic.Int64
	fault string
}

func (e *echo) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	size := unaryBytes
	if r.URL.Path == bulkPath {
		size = bulkBytes
	}
	body := message(size, backendFill[int(e.turn.Add(1))%2])
	status := "0"
	switch e.fault {
	case "body":
		body[size-1]++
	case "short":
		body = body[:size-1]
	case "status":
		status = "14"
	case "one backend":
		body = message(size, backendFill[0])
	case "page":
		http.Error(w, "bad gateway", http.StatusBadGateway)
		return
	}
	w.Header().Set("Content-Type", "application/grpc")
	if e.fault == "content type" {
		w.Header().Set("Content-Type", "text/html")
	}
	w.WriteHeader(http.StatusEarlyHints) // an interim response is not the reply
	w.Write(body)
	if e.fault != "no trailer" {
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", status)
	}
}

// serve is a server of HTTP/2, in clear when pair is nil.
func serve(t *testing.T, h http.Handler, pair *certificate) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h, Protocols: new(http.Protocols), ErrorLog: log.New(io.Discard, "", 0)}
	s.Protocols.SetHTTP2(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(func() { s.Close() })
	if pair == nil {
		go s.Serve(ln)
	} else {
		go s.ServeTLS(ln, pair.cert, pair.key)
	}
	return ln.Addr().String()
}

func TestProbeChecksEveryByte(t *testing.T) {
	tests := []struct {
		fault string
		want  string // part of the error
	}{
		{fault: ""},
		{fault: "body", want: "body of 105 bytes"},
		{fault: "short", want: "body of 104 bytes"},
		{fault: "status", want: "want grpc-status 0"},
		{fault: "no trailer", want: "want grpc-status 0"},
		{fault: "content type", want: `content-type "text/html"`},
		{fault: "page", want: `HTTP status "502"`},
	}
	for _, tt := range tests {
		t.Run("fault "+tt.fault, func(t *testing.T) {
			spread, err := probe(serve(t, &echo{fault: tt.fault}, nil), nil)
			if tt.want == "" {
				if err != nil || spread.check(true) != nil {
					t.Errorf("probe = %+v, %v, want both backends and no error", spread, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("probe: %v, want an error with %q", err, tt.want)
			}
		})
	}
}

func TestProbeSeesWhoBalances(t *testing.T) {
	tests := []struct {
		name   string
		b      balance
		perRPC bool
		fails  bool
	}{
		{name: "RPCs", b: balance{SameConn: [2]int{20, 20}, Conns: [2]int{4, 0}}, perRPC: true},
		{name: "connections, where RPCs are wanted", b: balance{SameConn: [2]int{40, 0}, Conns: [2]int{2, 2}}, perRPC: true, fails: true},
		{name: "connections", b: balance{SameConn: [2]int{40, 0}, Conns: [2]int{2, 2}}},
		{name: "nothing", b: balance{SameConn: [2]int{40, 0}, Conns: [2]int{4, 0}}, fails: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.b.check(tt.perRPC); (err != nil) != tt.fails {
				t.Errorf("check = %v, want an error %v", err, tt.fails)
			}
		})
	}
}

func TestProbeFeaturesWantsDeadlineAndRoute(t *testing.T) {
	err := probeFeatures(serve(t, &echo{}, nil))
	if err == nil || !strings.Contains(err.Error(), "want 4") {
		t.Errorf("probeFeatures of a server that enforces no deadline: %v", err)
	}
}

func TestClientWorksInTLS(t *testing.T) {
	pair, err := newCertificate(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	trust, err := trustIn(pair.cert)
	if err != nil {
		t.Fatal(err)
	}
	addr := serve(t, &echo{}, pair)
	if _, err := probe(addr, trust); err != nil {
		t.Fatal(err)
	}
	if _, err := dial(addr, &tls.Config{NextProtos: []string{"h2"}}); err == nil {
		t.Error("a client that does not trust the certificate connects")
	}
}

func TestOpenHoldsConnectionsThatAnswerPings(t *testing.T) {
	for _, rpc := range []bool{false, true} {
		e := &echo{}
		clients, err := open(serve(t, e, nil), 100, rpc, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := each(len(clients), func(i int) error { return clients[i].ping() }); err != nil {
			t.Errorf("ping: %v", err)
		}
		if calls := e.turn.Load(); (calls == 100) != rpc {
			t.Errorf("%d RPCs with rpc %v", calls, rpc)
		}
		for _, c := range clients {
			c.close()
		}
	}
}

func TestRelayCopiesBothWays(t *testing.T) {
	addr := serve(t, &echo{}, nil)
	for _, splice := range []bool{true, false} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		go func() {
			for {
				down, err := ln.Accept()
				if err != nil {
					return
				}
				go relay(down, addr, splice)
			}
		}()
		if _, err := probe(ln.Addr().String(), nil); err != nil {
			t.Errorf("probe with splice %v: %v", splice, err)
		}
	}
}
