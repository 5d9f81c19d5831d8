package listen

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"sluice/gateway/h2"
)

func TestListenerTellsProtocolsApart(t *testing.T) {
	f := newFiles(t)
	p := openPort(t, f.config())
	tests := []struct {
		name      string
		protocols []string // offered in TLS; nil for clear text
		ask       func(net.Conn) (string, error)
		want      string
	}{
		{"http2 in clear", nil, askHTTP2, "http2 clear from 127.0.0.1:"},
		{"http1 in clear", nil, askHTTP1, "http1 clear from 127.0.0.1:"},
		{"http2 in tls", []string{"h2"}, askHTTP2, `http2 tls "h2" from 127.0.0.1:`},
		{"http1 in tls", []string{"http/1.1"}, askHTTP1, `http1 tls "http/1.1" from 127.0.0.1:`},
		{"both offered", []string{"http/1.1", "h2"}, askHTTP2, `http2 tls "h2" from 127.0.0.1:`},
		{"nothing offered", []string{}, askHTTP1, `http1 tls "" from 127.0.0.1:`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			nc := p.dial(t)
			if test.protocols != nil {
				nc = tls.Client(nc, f.client(test.protocols...))
			}
			answer, err := test.ask(nc)
			if err != nil || !strings.Contains(answer, test.want) {
				t.Errorf("answer %q, %v; want %q", answer, err, test.want)
			}
		})
	}
	if got := p.count("accepted"); got != int64(len(tests)) {
		t.Errorf("%d connections were counted; want %d", got, len(tests))
	}
}

func TestListenerPutsTogetherWhatComesInPieces(t *testing.T) {
	f := newFiles(t)
	p := openPort(t, f.config())
	t.Run("preface", func(t *testing.T) {
		nc := p.dial(t)
		for _, b := range []byte(http2.ClientPreface) {
			nc.Write([]byte{b})
		}
		if answer, err := hear(nc); !strings.HasPrefix(answer, "http2 clear") {
			t.Errorf("answer %q, %v", answer, err)
		}
	})
	t.Run("request", func(t *testing.T) {
		nc := p.dial(t)
		for _, b := range []byte("GET / HTTP/1.1\r\nHost: gateway.test\r\n\r\n") {
			nc.Write([]byte{b})
		}
		if answer, err := hear(nc); !strings.Contains(answer, "http1 clear") {
			t.Errorf("answer %q, %v", answer, err)
		}
	})
}

func TestListenerRefusesInTheCallersProtocol(t *testing.T) {
	f := newFiles(t)
	onlyTLS := f.config()
	onlyTLS.NoClearText = true
	onlyClear := f.config()
	onlyClear.NoTLS = true
	tests := []struct {
		name    string
		cfg     Config
		say     string
		want    string
		counter string
	}{
		{"http1 where there is only tls", onlyTLS, "GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400 Bad Request", "clear_refused"},
		{"http2 where there is only tls", onlyTLS, http2.ClientPreface, "this port takes TLS only", "clear_refused"},
		{"tls where there is none", onlyClear, "\x16\x03\x01\x00\x05hello", "\x15\x03\x01\x00\x02\x02\x28", "tls_refused"},
		{"tls without a certificate", Config{}, "\x16\x03\x01\x00\x05hello", "\x15\x03\x01\x00\x02\x02\x28", "tls_refused"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := openPort(t, test.cfg)
			nc := p.dial(t)
			io.WriteString(nc, test.say)
			answer, err := io.ReadAll(nc)
			if err != nil || !strings.Contains(string(answer), test.want) {
				t.Errorf("answer %q, %v; want %q", answer, err, test.want)
			}
			p.await(t, test.counter, 1)
		})
	}
	for name, refusal := range map[string]string{"http1": refusalHTTP1, "http2": refusalHTTP2} {
		declared := map[string]int{
			"http1": strings.Index(refusal, "\r\n\r\n") + 4 + 25,
			"http2": 9 + 9 + 0x20,
		}[name]
		if len(refusal) != declared {
			t.Errorf("the refusal of %s has %d bytes and declares %d", name, len(refusal), declared)
		}
	}
}

// What is no protocol of ours is closed without a word.
func TestListenerClosesWhatItDoesNotKnow(t *testing.T) {
	p := openPort(t, Config{})
	for i, say := range []string{
		"INVALID CONNECTION PREFACE\r\n\r\n",
		"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
		"SSH-2.0-OpenSSH_9.2\r\n",
		"\x00\x00\x00\x04\x00\x00\x00\x00\x00",
		" / HTTP/1.1\r\n\r\n",
		strings.Repeat("M", 100),
	} {
		nc := p.dial(t)
		io.WriteString(nc, say)
		if answer, _ := io.ReadAll(nc); len(answer) > 0 {
			t.Errorf("%q was answered by %q", say, answer)
		}
		p.await(t, "unknown_protocol", int64(i+1))
	}
	for _, say := range []string{"PATCH /", "BREW *", "GET http://gateway.test/", "CONNECT gateway.test:443"} {
		nc := p.dial(t)
		io.WriteString(nc, say+" HTTP/1.1\r\nHost: gateway.test\r\n\r\n")
		if answer, err := hear(nc); !strings.HasPrefix(answer, "HTTP/1.1 200") {
			t.Errorf("%q was answered by %q, %v", say, answer, err)
		}
	}
	p.stop()
	if p.Open() != 0 {
		t.Errorf("%d connections are open; want 0", p.Open())
	}
}

// Whatever a connection has said so far, when it falls silent it is gone in time.
func TestListenerDropsSilentConnections(t *testing.T) {
	tests := []struct {
		name    string
		proxy   bool
		say     string
		want    time.Duration
		counter string
	}{
		{"nothing", false, "", 3 * time.Second, "sniff_timeout"},
		{"one byte", false, "P", 3 * time.Second, "sniff_timeout"},
		{"half a preface", false, "PRI * HTTP/2.0\r\n", 3 * time.Second, "sniff_timeout"},
		{"the type of a TLS record", false, "\x16\x03", 3 * time.Second, "sniff_timeout"},
		{"the header of a ClientHello", false, "\x16\x03\x01\x02\x00", 5 * time.Second, "handshake_timeout"},
		{"half an http1 header", false, "GET / HTTP/1.1\r\nHost:", 5 * time.Second, "http1"},
		{"no PROXY header", true, "", 3 * time.Second, "sniff_timeout"},
		{"half a PROXY header", true, "PROXY TCP4 1", 3 * time.Second, "sniff_timeout"},
		{"nothing behind the PROXY header", true, "PROXY UNKNOWN\r\n", 3 * time.Second, "sniff_timeout"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := newFiles(t).config()
				network := newMemory()
				cfg.Listener, cfg.ProxyProtocol = network, test.proxy
				p := openPort(t, cfg)
				const silent = 200
				start := time.Now()
				ended := make(chan time.Duration, silent)
				for range silent {
					nc := network.dial(t)
					go func() {
						io.WriteString(nc, test.say)
						io.Copy(io.Discard, nc)
						ended <- time.Since(start)
					}()
				}
				for range silent {
					if took := <-ended; took != test.want {
						t.Fatalf("a silent connection was gone after %s; want %s", took, test.want)
					}
				}
				synctest.Wait()
				if got := p.count(test.counter); got != silent {
					t.Errorf("%s is %d; want %d", test.counter, got, silent)
				}
				if p.Open() != 0 {
					t.Errorf("%d connections are open; want 0", p.Open())
				}
				p.stop()
			})
		})
	}
}

// Dripping bytes buys no time.
func TestListenerCutsADrip(t *testing.T) {
	tests := []struct {
		name string
		drip string
		want time.Duration
	}{
		{"preface", http2.ClientPreface, 3 * time.Second},
		{"tls", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("x", 500), 5 * time.Second},
		{"http1 header", "GET / HTTP/1.1\r\nX: " + strings.Repeat("x", 500), 5 * time.Second},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := newFiles(t).config()
				network := newMemory()
				cfg.Listener = network
				p := openPort(t, cfg)
				nc := network.dial(t)
				start := time.Now()
				go io.Copy(io.Discard, nc)
				for _, b := range []byte(test.drip) {
					if _, err := nc.Write([]byte{b}); err != nil {
						break
					}
					time.Sleep(170 * time.Millisecond)
				}
				if took := time.Since(start); took < test.want || took > test.want+200*time.Millisecond {
					t.Errorf("the drip lasted %s; want %s", took, test.want)
				}
				p.stop()
			})
		})
	}
}

// A slow upload is no slow header.
func TestListenerLiftsTheDeadlineBehindTheHeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemory()
		p := openPort(t, Config{Listener: network})
		nc := network.dial(t)
		io.WriteString(nc, "POST / HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: 10\r\n\r\n")
		for range 10 {
			time.Sleep(2 * time.Second)
			if _, err := io.WriteString(nc, "x"); err != nil {
				t.Fatalf("uploading for %s: %v", 20*time.Second, err)
			}
		}
		if answer, err := hear(nc); !strings.Contains(answer, "http1 clear") {
			t.Errorf("answer %q, %v", answer, err)
		}
		time.Sleep(time.Minute) // idle, between two requests
		if answer, err := askHTTP1(nc); !strings.Contains(answer, "http1 clear") {
			t.Errorf("second answer %q, %v", answer, err)
		}
		nc.Close()
		p.stop()
	})
}

// exhausted is a listener that fails for a while, as when descriptors run out.
type exhausted struct {
	*memory
	calls    atomic.Int64
	failures int64
}

func (e *exhausted) Accept() (net.Conn, error) {
	if e.calls.Add(1) <= e.failures {
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: syscall.EMFILE}
	}
	return e.memory.Accept()
}

func TestGateBacksOffWhenDescriptorsRunOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := &exhausted{memory: newMemory(), failures: 20}
		p := openPort(t, Config{Listener: network})
		time.Sleep(time.Second)
		// 5, 10, 20, ... 640 ms: the eighth wait lasts beyond the first second.
		if calls := network.calls.Load(); calls != 8 {
			t.Errorf("accept was called %d times in a second; want 8", calls)
		}
		start := time.Now()
		nc := network.dial(t)
		if waited := time.Since(start); waited > 13*time.Second {
			t.Errorf("after 20 failures a connection was taken %s later; want at most 1s for each", waited)
		}
		go io.WriteString(nc, http2.ClientPreface)
		if answer, err := hear(nc); !strings.HasPrefix(answer, "http2") {
			t.Errorf("answer %q, %v", answer, err)
		}
		if got := p.count("accept_backoff"); got != 20 {
			t.Errorf("accept_backoff is %d; want 20", got)
		}
		if n := strings.Count(p.log.String(), "accepting paused"); n != 1 {
			t.Errorf("the trouble was logged %d times; want once", n)
		}
		nc.Close()
		p.stop()
	})
}

func TestGateEndsWhileItBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := openPort(t, Config{Listener: &exhausted{memory: newMemory(), failures: 1000}})
		time.Sleep(time.Minute)
		p.stop()
	})
}

func TestListenerRefusesOverTheCap(t *testing.T) {
	p := openPort(t, Config{MaxConnections: 2})
	first, second := p.dial(t), p.dial(t)
	for _, nc := range []net.Conn{first, second} {
		if answer, err := askHTTP2(nc); err != nil {
			t.Fatalf("within the cap: %q, %v", answer, err)
		}
	}
	third, err := net.Dial("tcp", p.Addr().String())
	if err == nil { // it may be gone as early as that
		answer, askErr := askHTTP2(third)
		if err = askErr; err == nil {
			t.Errorf("over the cap: %q", answer)
		}
		third.Close()
	}
	p.await(t, "over_cap", 1)
	first.Close()
	for deadline := time.Now().Add(5 * time.Second); p.Open() > 1; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("%d connections are open; want 1", p.Open())
		}
	}
	if answer, err := askHTTP2(p.dial(t)); err != nil {
		t.Errorf("when one has gone: %q, %v", answer, err)
	}
}

func TestConnectionsWithinTheDescriptors(t *testing.T) {
	for _, test := range []struct{ descriptors, want int64 }{
		{64, 32}, {256, 160}, {1024, 832}, {1 << 20, 1<<20 - 1<<17 - 64},
	} {
		if got := connectionsWithin(test.descriptors); got != test.want {
			t.Errorf("of %d descriptors %d are for connections; want %d", test.descriptors, got, test.want)
		}
	}
	if got := descriptorsForConnections(); got <= 0 {
		t.Errorf("%d descriptors for connections", got)
	}
}

// A port that closes still tells the connections apart that it has let in.
func TestListenerHandsOverWhatItHasAcceptedWhenItStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemory()
		p := openPort(t, Config{Listener: network})
		var slow []net.Conn
		for range 50 {
			nc := network.dial(t)
			io.WriteString(nc, "PRI * HTTP")
			slow = append(slow, nc)
		}
		p.StopAccepting()
		p.StopAccepting()
		synctest.Wait()
		for _, nc := range slow {
			io.WriteString(nc, "/2.0\r\n\r\nSM\r\n\r\n")
			if answer, err := hear(nc); !strings.HasPrefix(answer, "http2") {
				t.Fatalf("answer %q, %v", answer, err)
			}
			nc.Close()
		}
		p.stop()
	})
}

// When it is all over, what has not shown itself is closed at once.
func TestListenerEndsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemory()
		cfg := newFiles(t).config()
		cfg.Listener = network
		p := openPort(t, cfg)
		for _, said := range []string{"", "PRI *", "\x16\x03\x01\x02\x00"} {
			nc := network.dial(t)
			io.WriteString(nc, said)
			go io.Copy(io.Discard, nc)
		}
		start := time.Now()
		p.stop()
		if took := time.Since(start); took != 0 {
			t.Errorf("ending took %s", took)
		}
		for _, c := range p.Counters() {
			if c.Name != "accepted" && c.Name != "stopped" && c.Value() != 0 {
				t.Errorf("%s is %d; nobody was at fault", c.Name, c.Value())
			}
		}
		if p.Open() != 0 {
			t.Errorf("%d connections are open", p.Open())
		}
	})
}

func TestListenerReportsThatItsPortBroke(t *testing.T) {
	network := newMemory()
	l, err := New(Config{Listener: network}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		ended <- l.Run(t.Context(), Handlers{
			HTTP2: func(_ context.Context, t *h2.Transport, _ Info) { t.Close() },
			HTTP1: func(l net.Listener) { l.Accept() },
		})
	}()
	network.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("the port was closed behind its back: %v; want an error", err)
	}
}

func TestConfigIsValidated(t *testing.T) {
	tests := []struct {
		name string
		cfg  Config
		want string
	}{
		{"key without certificate", Config{TLSKey: "key.pem"}, "a certificate and its key come together"},
		{"authorities without certificate", Config{TLSClientCA: "ca.pem"}, "no certificate of our own"},
		{"nothing to serve", Config{NoClearText: true}, "neither clear text nor TLS"},
		{"no time at all", Config{SniffTimeout: -1, HandshakeDeadline: -1}, "handshake deadline -1ns: want more than 0s"},
		{"no such file", Config{TLSCert: "absent.pem", TLSKey: "absent.pem"}, `load certificate "absent.pem"`},
		{"no such address", Config{Address: "nowhere"}, "nowhere"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := New(test.cfg, slog.New(slog.DiscardHandler))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v; want %q in it", err, test.want)
			}
		})
	}
}

func TestListenerOnIPv4IsOnIPv4Alone(t *testing.T) {
	for address, want := range map[string]string{
		"0.0.0.0:0": "0.0.0.0", "127.0.0.1:0": "127.0.0.1",
	} {
		l, err := New(Config{Address: address}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if got, _, _ := net.SplitHostPort(l.Addr().String()); got != want {
			t.Errorf("%s is open on %s, want %s", address, got, want)
		}
		l.StopAccepting()
	}
}
