package h2

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// seamServer serves a handler by the engine on a socket.
type seamServer struct {
	url string
	eng *Engine
}

// newSeamServer ends with the test, and finds fault with what is left then.
func newSeamServer(t testing.TB, handler http.HandlerFunc) *seamServer {
	t.Helper()
	return newSeamServerOn(t, handler, new(net.ListenConfig), func(nc net.Conn) *Transport { return NewTransport(nc, nil) })
}

// newSeamServerOn is newSeamServer for sockets and transports of a kind.
func newSeamServerOn(t testing.TB, handler http.HandlerFunc, lc *net.ListenConfig, transport func(net.Conn) *Transport) *seamServer {
	t.Helper()
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	eng := NewEngine(Limits{})
	seam := NewSeam(handler, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	var ran sync.WaitGroup
	ran.Go(func() { eng.Run(ctx) })
	ran.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			acceptor := seamAcceptor{seam, Peer{RemoteAddr: nc.RemoteAddr().String()}}
			ran.Go(func() {
				tr := transport(nc)
				if err := tr.Handshake(ctx); err != nil {
					tr.Close()
					return
				}
				eng.NewServer(tr, acceptor, time.Now()).Run(ctx)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		cancel()
		ran.Wait()
		seam.Wait()
		wantNothingLeft(t, eng)
	})
	return &seamServer{url: "http://" + l.Addr().String(), eng: eng}
}

func wantNothingLeft(t testing.TB, eng *Engine) {
	t.Helper()
	for _, side := range sides {
		if c := eng.Counts(side); c.Open != 0 || c.Streams != 0 {
			t.Errorf("%v: %d connections and %d streams are left", side, c.Open, c.Streams)
		}
	}
	if eng.grown.Load() != 0 || eng.queued.Load() != 0 {
		t.Errorf("%d bytes of window and %d of queues are left", eng.grown.Load(), eng.queued.Load())
	}
}

// oracle is net/http's client, speaking HTTP/2 in clear text.
func oracle(t testing.TB) *http.Client {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	tr := &http.Transport{Protocols: p, ExpectContinueTimeout: 5 * time.Second}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// noise is the same bytes for the same seed.
func noise(n int, seed uint64) []byte {
	b := make([]byte, n)
	var key [32]byte
	key[0] = byte(seed)
	rand.NewChaCha8(key).Read(b)
	return b
}

// unsized hides how long a body is, and delivers it in pieces.
type unsized struct{ io.Reader }

func (u unsized) Read(p []byte) (int, error) { return u.Reader.Read(p[:min(len(p), 5000)]) }

func TestSeamServesTheOracle(t *testing.T) {
	srv := newSeamServer(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/echo":
			io.Copy(w, r.Body)
		case "/sum":
			h := sha256.New()
			n, err := io.Copy(h, r.Body)
			fmt.Fprintf(w, "%d %x %v", n, h.Sum(nil), err)
		case "/slow":
			buf := make([]byte, 64<<10)
			for {
				n, err := r.Body.Read(buf)
				w.Write(buf[:n])
				if err != nil {
					return
				}
				w.(http.Flusher).Flush()
			}
		}
	})
	client := oracle(t)
	for _, size := range []int{0, 1, 4095, 4096, 16384, 100_000, 3 << 20} {
		body := noise(size, uint64(size))
		for _, path := range []string{"/echo", "/sum", "/slow"} {
			for _, sized := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s/%d/sized %v", path, size, sized), func(t *testing.T) {
					var r io.Reader = bytes.NewReader(body)
					if !sized {
						r = unsized{r}
					}
					res, err := client.Post(srv.url+path, "application/octet-stream", r)
					if err != nil {
						t.Fatal(err)
					}
					defer res.Body.Close()
					got, err := io.ReadAll(res.Body)
					if err != nil {
						t.Fatal(err)
					}
					want := body
					if path == "/sum" {
						want = fmt.Appendf(nil, "%d %x <nil>", size, sha256.Sum256(body))
					}
					if !bytes.Equal(got, want) {
						t.Errorf("got %d bytes, want %d, or others", len(got), len(want))
					}
				})
			}
		}
	}
}

func TestSeamServesManyAtOnce(t *testing.T) {
	var most, now atomic.Int64
	srv := newSeamServer(t, func(w http.ResponseWriter, r *http.Request) {
		for n := now.Add(1); ; {
			if old := most.Load(); n <= old || most.CompareAndSwap(old, n) {
				break
			}
		}
		defer now.Add(-1)
		io.Copy(w, r.Body)
	})
	client := oracle(t)
	var wg sync.WaitGroup
	for i := range 300 {
		wg.Go(func() {
			body := noise(20_000+i, uint64(i))
			res, err := client.Post(srv.url, "", bytes.NewReader(body))
			if err != nil {
				t.Error(err)
				return
			}
			defer res.Body.Close()
			if got, err := io.ReadAll(res.Body); err != nil || !bytes.Equal(got, body) {
				t.Errorf("request %d: %d bytes, %v", i, len(got), err)
			}
		})
	}
	wg.Wait()
	if n := most.Load(); n > 100*int64(srv.eng.Counts(Downstream).Opened) {
		t.Errorf("%d requests at once on %d connections, want at most 100 on each", n, srv.eng.Counts(Downstream).Opened)
	}
}

func TestSeamTradesTrailersWithTheOracle(t *testing.T) {
	srv := newSeamServer(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Announced")
		io.Copy(w, r.Body)
		w.Header().Set("X-Announced", r.Trailer.Get("X-Sum"))
		w.Header().Set(http.TrailerPrefix+"X-Late", "late")
	})
	req, _ := http.NewRequest("POST", srv.url, unsized{strings.NewReader("body")})
	req.Trailer = http.Header{"X-Sum": nil}
	req.Body = &onEOF{req.Body, func() { req.Trailer.Set("X-Sum", "42") }}
	res, err := oracle(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); string(b) != "body" || err != nil {
		t.Errorf("body %q, %v", b, err)
	}
	if got := res.Trailer.Get("X-Announced") + " " + res.Trailer.Get("X-Late"); got != "42 late" {
		t.Errorf("trailers %v", res.Trailer)
	}
}

// onEOF calls done when the body has been read.
type onEOF struct {
	io.ReadCloser
	done func()
}

func (r *onEOF) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if err == io.EOF {
		r.done()
	}
	return n, err
}

func TestSeamAsksTheOracleToContinue(t *testing.T) {
	srv := newSeamServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/refuse" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		io.Copy(w, r.Body)
	})
	client := oracle(t)
	for _, tt := range []struct {
		path   string
		status int
		body   string
	}{{"/take", 200, "body"}, {"/refuse", 403, ""}} {
		req, _ := http.NewRequest("POST", srv.url+tt.path, strings.NewReader("body"))
		req.Header.Set("Expect", "100-continue")
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != tt.status || string(b) != tt.body || err != nil {
			t.Errorf("%s: status %d, body %q, %v; want %d, %q", tt.path, res.StatusCode, b, err, tt.status, tt.body)
		}
	}
}

func TestSeamRefusesTheOraclesLargeHeaders(t *testing.T) {
	srv := newSeamServer(t, func(w http.ResponseWriter, r *http.Request) {})
	client := oracle(t)
	for _, tt := range []struct{ size, want int }{{10_000, 200}, {16_200, 431}, {40_000, 431}} {
		req, _ := http.NewRequest("GET", srv.url, nil)
		req.Header.Set("X-Large", strings.Repeat("v", tt.size))
		res, err := client.Do(req)
		if err != nil {
			// net/http keeps to our SETTINGS_MAX_HEADER_LIST_SIZE once it knows it.
			if tt.want != 431 {
				t.Error(err)
			}
			continue
		}
		res.Body.Close()
		if res.StatusCode != tt.want {
			t.Errorf("%d bytes: status %d, want %d", tt.size, res.StatusCode, tt.want)
		}
	}
}

// The oracle gives up: the handler hears of it, whatever it waits for.
func TestSeamCancelsWithTheOracle(t *testing.T) {
	for _, wait := range []string{"/context", "/read", "/write"} {
		t.Run(wait, func(t *testing.T) {
			begun, ended := make(chan struct{}), make(chan error, 1)
			srv := newSeamServer(t, func(w http.ResponseWriter, r *http.Request) {
				w.(http.Flusher).Flush()
				close(begun)
				var err error
				switch wait {
				case "/context":
					<-r.Context().Done()
					err = context.Cause(r.Context())
				case "/read":
					_, err = io.Copy(io.Discard, r.Body)
				case "/write":
					_, err = io.Copy(w, endless{})
				}
				ended <- err
			})
			ctx, cancel := context.WithCancel(t.Context())
			body, w := io.Pipe()
			defer w.Close()
			req, _ := http.NewRequestWithContext(ctx, "POST", srv.url+wait, body)
			res, err := oracle(t).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			<-begun
			cancel()
			res.Body.Close() // net/http does not look at the context while it reads a body
			select {
			case err := <-ended:
				if err == nil {
					t.Error("the handler ended without an error")
				}
			case <-time.After(5 * time.Second):
				t.Fatal("the handler did not hear of it")
			}
		})
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestSeamBreaksOffForTheOracle(t *testing.T) {
	srv := newSeamServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/short" {
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, "short")
			return
		}
		io.WriteString(w, strings.Repeat("x", 100_000))
		panic(http.ErrAbortHandler)
	})
	client := oracle(t)
	for _, path := range []string{"/short", "/panic"} {
		res, err := client.Get(srv.url + path)
		if err != nil {
			continue
		}
		if _, err := io.ReadAll(res.Body); err == nil {
			t.Errorf("%s: the response looks complete", path)
		}
		res.Body.Close()
	}
}

// A client that reads slowly holds its handler back, and nobody else.
func TestSeamWaitsForASlowOracle(t *testing.T) {
	var written atomic.Int64
	srv := newSeamServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/quick" {
			return
		}
		buf := make([]byte, 16<<10)
		for range 32 << 20 / len(buf) {
			n, err := w.Write(buf)
			if written.Add(int64(n)); err != nil {
				return
			}
		}
	})
	client := oracle(t)
	res, err := client.Get(srv.url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	// net/http grants 4 MiB to a stream; beyond that only what the sockets hold.
	var stalled int64
	transportAwait(t, "the handler waits", func() bool {
		before := written.Load()
		for range 20 {
			quick, err := client.Get(srv.url + "/quick")
			if err != nil {
				t.Fatal(err)
			}
			quick.Body.Close()
		}
		stalled = written.Load()
		return before > 0 && before == stalled
	})
	if stalled > 8<<20 {
		t.Errorf("%d bytes were written that nobody reads", stalled)
	}
	if n, err := io.Copy(io.Discard, res.Body); n != 32<<20 || err != nil {
		t.Errorf("read %d bytes, %v", n, err)
	}
}

// TestSeamServesTheOracleOverSockets has bodies go both ways at once, over sockets
// that hold little and in TLS: what the socket does not take at once goes by another
// way than what it does.
func TestSeamServesTheOracleOverSockets(t *testing.T) {
	echo := func(w http.ResponseWriter, r *http.Request) {
		buf := make([]byte, 20_000)
		for {
			n, err := r.Body.Read(buf)
			w.Write(buf[:n])
			if err != nil {
				return
			}
			w.(http.Flusher).Flush()
		}
	}
	for _, tt := range []struct {
		name        string
		tls, narrow bool
	}{{"tls", true, false}, {"clear, narrow", false, true}, {"tls, narrow", true, true}} {
		t.Run(tt.name, func(t *testing.T) {
			serverConfig, clientConfig := transportConfigs(t)
			protocols := new(http.Protocols)
			protocols.SetHTTP2(tt.tls)
			protocols.SetUnencryptedHTTP2(!tt.tls)
			var lc net.ListenConfig
			var dialer net.Dialer
			if tt.narrow {
				lc.Control, dialer.Control = transportNarrow, transportNarrow
			}
			srv := newSeamServerOn(t, echo, &lc, func(nc net.Conn) *Transport {
				if tt.tls {
					return NewServerTLS(nc, nil, serverConfig)
				}
				return NewTransport(nc, nil)
			})
			if tt.tls {
				srv.url = strings.Replace(srv.url, "http:", "https:", 1)
			}
			client := &http.Client{Transport: &http.Transport{Protocols: protocols, TLSClientConfig: clientConfig, DialContext: dialer.DialContext}}
			defer client.CloseIdleConnections()
			first, err := client.Get(srv.url) // its connection is for all that follow
			if err != nil {
				t.Fatal(err)
			}
			first.Body.Close()
			var wg sync.WaitGroup
			for i := range 8 {
				wg.Go(func() {
					body := noise(200_000+i, uint64(i))
					res, err := client.Post(srv.url, "", unsized{bytes.NewReader(body)})
					if err != nil {
						t.Error(err)
						return
					}
					defer res.Body.Close()
					if res.ProtoMajor != 2 {
						t.Errorf("protocol %s", res.Proto)
					}
					if got, err := io.ReadAll(res.Body); err != nil || !bytes.Equal(got, body) {
						t.Errorf("%d of %d bytes, %v", len(got), len(body), err)
					}
				})
			}
			wg.Wait()
			if n := srv.eng.Counts(Downstream).Opened; n != 1 {
				t.Errorf("%d connections were opened, want 1", n)
			}
		})
	}
}

// TestSpliceSurvivesChaos has clients come, give up and go while their streams pass
// through one backend's connection. In the end nothing is left, and what came through
// was right.
func TestSpliceSurvivesChaos(t *testing.T) {
	eng := NewEngine(Limits{})
	t.Cleanup(func() { wantNothingLeft(t, eng) })
	backend := newSeamServer(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Nonce", r.Header.Get("X-Nonce"))
		w.Header().Set("Trailer", "X-Sum")
		n, _ := io.Copy(w, r.Body)
		w.Header().Set("X-Sum", fmt.Sprint(n))
	})
	up := dial(t, eng, strings.TrimPrefix(backend.url, "http://"))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var ran sync.WaitGroup
	ran.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			c := eng.NewServer(NewTransport(nc, nil), &splice{t: t, to: up.conn}, time.Now())
			ran.Go(func() { c.Run(ctx) })
		}
	})
	defer ran.Wait()
	defer cancel()
	defer l.Close()
	var whole atomic.Int64
	var clients sync.WaitGroup
	for i := range uint64(6) {
		clients.Go(func() {
			rng := rand.New(rand.NewPCG(i, 1))
			for range 5 {
				client := oracle(t)
				var trips sync.WaitGroup
				for range 10 {
					size, patience, nonce := rng.IntN(60_000), rng.IntN(20), fmt.Sprint(rng.Uint64())
					trips.Go(func() {
						if chaosTrip(t, client, "http://"+l.Addr().String(), size, patience, nonce) {
							whole.Add(1)
						}
					})
				}
				trips.Wait()
				client.CloseIdleConnections()
			}
		})
	}
	clients.Wait()
	if whole.Load() == 0 {
		t.Error("nothing came through")
	}
}

// chaosTrip reports whether it was carried to its end; one with little patience gives
// up somewhere on the way.
func chaosTrip(t *testing.T, client *http.Client, url string, size, patience int, nonce string) bool {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if patience < 10 {
		timer := time.AfterFunc(time.Duration(patience)*time.Millisecond/2, cancel)
		defer timer.Stop()
	}
	body := noise(size, uint64(size))
	req, _ := http.NewRequestWithContext(ctx, "POST", url, unsized{bytes.NewReader(body)})
	req.Header.Set("X-Nonce", nonce)
	res, err := client.Do(req)
	if err != nil {
		if ctx.Err() == nil {
			t.Error(err)
		}
		return false
	}
	defer res.Body.Close()
	if res.Header.Get("X-Nonce") != nonce {
		t.Errorf("another stream's response: nonce %q, want %q", res.Header.Get("X-Nonce"), nonce)
	}
	got, err := io.ReadAll(res.Body)
	switch {
	case err != nil && ctx.Err() == nil:
		t.Error(err)
	case err == nil && (!bytes.Equal(got, body) || res.Trailer.Get("X-Sum") != fmt.Sprint(size)):
		t.Errorf("%d bytes of %d, trailers %v", len(got), size, res.Trailer)
	}
	return err == nil
}

// mortalConn is a socket that is torn off some time after it was opened.
func mortalConn(nc net.Conn, life time.Duration) net.Conn {
	time.AfterFunc(life, func() {
		nc.(*net.TCPConn).SetLinger(0) // a reset, not an orderly end
		nc.Close()
	})
	return nc
}

// TestSpliceSurvivesLostConnections tears sockets off on both sides of a relay in the
// middle of traffic. Every trip ends, every connection ends, nothing is left.
func TestSpliceSurvivesLostConnections(t *testing.T) {
	eng := NewEngine(Limits{})
	t.Cleanup(func() { wantNothingLeft(t, eng) })
	backend := newSeamServer(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
	ctx, cancel := context.WithCancel(context.Background())
	var ran, clients sync.WaitGroup
	for round := range 12 {
		life := time.Duration(1+round*2) * time.Millisecond
		nc, err := net.Dial("tcp", strings.TrimPrefix(backend.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		up := eng.NewClient(NewTransport(mortalConn(nc, life+5*time.Millisecond), nil), newRecorder(), 0)
		ran.Go(func() { up.Run(ctx) })
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ran.Go(func() {
			for {
				nc, err := l.Accept()
				if err != nil {
					return
				}
				c := eng.NewServer(NewTransport(nc, nil), &splice{t: t, to: up, lossy: true}, time.Now())
				ran.Go(func() { c.Run(ctx) })
			}
		})
		protocols := new(http.Protocols)
		protocols.SetUnencryptedHTTP2(true)
		client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
			Protocols: protocols,
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				nc, err := new(net.Dialer).DialContext(ctx, network, addr)
				if err == nil && round%2 == 0 {
					mortalConn(nc, life)
				}
				return nc, err
			},
		}}
		var trips sync.WaitGroup
		for i := range 8 {
			trips.Go(func() {
				res, err := client.Post("http://"+l.Addr().String(), "", unsized{bytes.NewReader(noise(200_000, uint64(i)))})
				if err != nil {
					return
				}
				io.Copy(io.Discard, res.Body)
				res.Body.Close()
			})
		}
		clients.Go(func() {
			trips.Wait()
			client.CloseIdleConnections()
			l.Close()
		})
	}
	clients.Wait()
	cancel()
	ran.Wait()
}

// countedConn counts what leaves in one piece.
type countedConn struct {
	net.Conn
	writes *atomic.Int64
}

func (c countedConn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

// A short response must not arrive in parts: a client whose patience ends between them
// would take what it has for the whole.
func TestSeamSendsAShortResponseInOnePiece(t *testing.T) {
	var writes atomic.Int64
	s := newSeamServerOn(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Last")
		io.WriteString(w, "short")
		w.Header().Set("X-Last", "1")
	}, new(net.ListenConfig), func(nc net.Conn) *Transport { return NewTransport(countedConn{nc, &writes}, nil) })
	client := oracle(t)
	for i := range 3 {
		before := writes.Load()
		resp, err := client.Get(s.url)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(body) != "short" || resp.Trailer.Get("X-Last") != "1" {
			t.Errorf("got %q with trailers %v, %v", body, resp.Trailer, err)
		}
		// The first one comes with the greeting.
		if n := writes.Load() - before; i > 0 && n != 1 {
			t.Errorf("response %d left in %d pieces", i, n)
		}
	}
}
