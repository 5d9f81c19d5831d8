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
	l, err := net.Listen("tcp", "127.0.0.1:0")
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
			ran.Go(func() { eng.NewServer(NewTransport(nc, nil), acceptor, time.Now()).Run(ctx) })
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
