package admin

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestAdminListensFromNewOn(t *testing.T) {
	a, err := New(Config{Listen: "127.0.0.1:0"}, Parts{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	resp, err := http.Get("http://" + a.Addr().String() + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.Proto != "HTTP/1.1" {
		t.Errorf("answered %s %s, want HTTP/1.1 200", resp.Proto, resp.Status)
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("Run returned %v", err)
	}
	if conn, err := net.Dial("tcp", a.Addr().String()); err == nil {
		conn.Close()
		t.Error("the door is open after Run has returned")
	}
}

func TestAdminTellsWhyItCannotOpen(t *testing.T) {
	taken, err := New(Config{Listen: "127.0.0.1:0"}, Parts{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	addr := taken.Addr().String()
	for _, tc := range []struct{ name, listen, want string }{
		{"no port", "localhost", `admin.listen "localhost": want host:port`},
		{"too many colons", "::1:80", `admin.listen "::1:80": want host:port`},
		{"taken", addr, "open admin port: listen tcp4 " + addr + ": bind: address already in use"},
	} {
		_, err := New(Config{Listen: tc.listen}, Parts{}, slog.New(slog.DiscardHandler))
		if err == nil || err.Error() != tc.want {
			t.Errorf("%s: error %v, want %s", tc.name, err, tc.want)
		}
	}
}

func TestConfigHasDefaults(t *testing.T) {
	for _, tc := range []struct {
		name       string
		cfg        Config
		wantListen string
		wantGrace  time.Duration
	}{
		{"zero", Config{}, "127.0.0.1:8081", 5 * time.Second},
		{"set", Config{Listen: ":9", ShutdownGrace: time.Second}, ":9", time.Second},
		{"negative", Config{ShutdownGrace: -1}, "127.0.0.1:8081", 0},
	} {
		if err := tc.cfg.Validate(); err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
		if tc.cfg.listen() != tc.wantListen || tc.cfg.shutdownGrace() != tc.wantGrace {
			t.Errorf("%s: %s, %v; want %s, %v", tc.name, tc.cfg.listen(), tc.cfg.shutdownGrace(), tc.wantListen, tc.wantGrace)
		}
	}
}

func TestAdminReturnsWhenItsListenerFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t, Config{}, Parts{})
		synctest.Wait()
		d.Close()
		if err := <-d.ended; !errors.Is(err, net.ErrClosed) || !strings.HasPrefix(err.Error(), "serve admin on pipe: ") {
			t.Errorf("Run returned %v", err)
		}
	})
}

func TestAdminSpeaksNoHTTP2(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t, Config{}, Parts{})
		resp, _ := d.send(t, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
		if resp.ProtoMajor != 1 || resp.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("the HTTP/2 preface was answered with %s %s", resp.Proto, resp.Status)
		}
		resp, _ = d.send(t, "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n")
		if resp.StatusCode != http.StatusOK {
			t.Errorf("an upgrade to h2c was answered with %s, want 200 in HTTP/1.1", resp.Status)
		}
	})
}

func TestAdminRefusesALongHeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t, Config{}, Parts{})
		long := strings.Repeat("x", maxHeaderBytes+8<<10)
		resp, _ := d.send(t, "GET /healthz HTTP/1.1\r\nHost: x\r\nX: "+long+"\r\n\r\n")
		if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("answered %s, want 431", resp.Status)
		}
	})
}

func TestAdminCutsWhoKeepsItWaiting(t *testing.T) {
	const request = "GET /healthz HTTP/1.1\r\nHost: x\r\n"
	for _, tc := range []struct {
		name  string
		sent  string
		reply bool // the request is answered first
		want  time.Duration
	}{
		{"saying nothing", "", false, headerTimeout},
		{"half a header", request, false, headerTimeout},
		{"idle after an answer", request + "\r\n", true, idleTimeout},
		{"a body without end", request + "Transfer-Encoding: chunked\r\n\r\n1\r\n", true, 0},
		{"a body that does not come", request + "Content-Length: 5\r\n\r\n", true, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := open(t, Config{}, Parts{})
				conn := d.dial()
				defer conn.Close()
				began := time.Now()
				io.WriteString(conn, tc.sent)
				if tc.reply {
					receive(t, conn, http.MethodGet)
				}
				io.Copy(io.Discard, conn) // until it is cut
				if waited := time.Since(began); waited < tc.want || waited > tc.want+time.Second {
					t.Errorf("cut after %v, want %v", waited, tc.want)
				}
			})
		})
	}
}

func TestAdminGivesProfilesTheirTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t, Config{Pprof: true}, Parts{})
		resp, body := d.ask(t, "GET", "/debug/pprof/goroutine?seconds=60")
		if resp.StatusCode != http.StatusOK || body == "" {
			t.Errorf("a profile of one minute was answered with %s and %d bytes", resp.Status, len(body))
		}
	})
}

func TestAdminClosesConnectionsBeyondItsLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t, Config{}, Parts{})
		var conns []net.Conn
		for range maxConns {
			conns = append(conns, d.dial())
		}
		over := d.dial()
		over.SetReadDeadline(time.Now().Add(time.Second)) // sooner than any timeout of the door
		if _, err := over.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Fatalf("one connection too many reads %v, want EOF", err)
		}
		conns[0].Close()
		synctest.Wait() // the door has noticed
		if resp, _ := d.ask(t, "GET", "/healthz"); resp.StatusCode != http.StatusOK {
			t.Errorf("in the place of another, answered %s", resp.Status)
		}
		for _, c := range conns {
			c.Close()
		}
	})
}

// A client that asks and does not take the answer is not waited for.
func TestAdminCutsWhoDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		page := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, strings.Repeat("x", 1<<20))
		})
		d := open(t, Config{}, Parts{Metrics: page})
		conn := d.dial()
		defer conn.Close()
		io.WriteString(conn, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
		time.Sleep(answerTimeout + time.Second) // the bubble's time: what is late, is late here
		if text, err := io.ReadAll(conn); err != nil || len(text) > 0 {
			t.Errorf("after %v there were still %d bytes to read, error %v", answerTimeout, len(text), err)
		}
	})
}

// slow is a part that answers after a while, unless its client has gone.
func slow(d time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(d):
			io.WriteString(w, "at last\n")
		case <-r.Context().Done():
		}
	})
}

func TestAdminWaitsForAnswersUnderWay(t *testing.T) {
	for _, tc := range []struct {
		name       string
		grace      time.Duration
		takes      time.Duration
		wantAnswer bool
		want       time.Duration // at the longest, from the end of the context to the end of Run
	}{
		{"nothing under way", 0, 0, false, time.Second},
		{"within the grace", 0, 4 * time.Second, true, 5 * time.Second},
		{"beyond the grace", 2 * time.Second, 10 * time.Second, false, 2 * time.Second},
		{"no grace", -1, 10 * time.Second, false, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := open(t, Config{ShutdownGrace: tc.grace}, Parts{Metrics: slow(tc.takes)})
				answered := make(chan bool, 1)
				if tc.takes > 0 {
					conn := d.dial()
					defer conn.Close()
					io.WriteString(conn, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
					go func() {
						text, _ := io.ReadAll(conn)
						answered <- strings.Contains(string(text), "at last")
					}()
				} else {
					answered <- false
				}
				synctest.Wait()
				began := time.Now()
				d.stop()
				if err := <-d.ended; err != nil {
					t.Errorf("Run returned %v", err)
				}
				if waited := time.Since(began); waited > tc.want {
					t.Errorf("Run waited %v, want %v at most", waited, tc.want)
				}
				if got := <-answered; got != tc.wantAnswer {
					t.Errorf("answered: %v, want %v", got, tc.wantAnswer)
				}
			})
		})
	}
}
