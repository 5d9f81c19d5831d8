package upstream

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/gateway/balance"
	"sluice/gateway/h2"
	"sluice/store"
)

// plainWorld is a pool before a server of HTTP/1, in memory.
type plainWorld struct {
	*Pool
	t      *testing.T
	log    *logged
	conns  chan net.Conn
	refuse atomic.Pointer[error] // of dials
	mute   atomic.Bool           // dials go on for ever
	tries  atomic.Int64
	stop   func()
}

func (w *plainWorld) Accept() (net.Conn, error) {
	nc, ok := <-w.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return nc, nil
}

func (w *plainWorld) Close() error   { return nil }
func (w *plainWorld) Addr() net.Addr { return &net.TCPAddr{} }

func (w *plainWorld) reach(ctx context.Context, _ string) (net.Conn, error) {
	w.tries.Add(1)
	if w.mute.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if err := w.refuse.Load(); err != nil {
		return nil, *err
	}
	near, far := net.Pipe()
	w.conns <- far
	return near, nil
}

func newPlainWorld(t *testing.T, handler http.HandlerFunc) *plainWorld {
	w := &plainWorld{t: t, log: new(logged), conns: make(chan net.Conn)}
	w.Pool = NewPool(h2.NewEngine(h2.Limits{}), slog.New(slog.NewTextHandler(w.log, nil)))
	w.Pool.dial = w.reach
	ctx, cancel := context.WithCancel(context.Background())
	var pool, served sync.WaitGroup
	pool.Go(func() { w.Pool.Run(ctx) })
	server := &http.Server{Handler: handler}
	served.Go(func() { server.Serve(w) })
	w.stop = sync.OnceFunc(func() {
		cancel()
		pool.Wait() // nobody dials any more
		close(w.conns)
		server.Close()
		served.Wait()
	})
	t.Cleanup(w.stop)
	return w
}

// apply puts a backend of one endpoint in force.
func (w *plainWorld) apply(change func(*store.Backend)) *Backend {
	spec := &store.Backend{Meta: store.Meta{Name: "a"}}
	spec.Spec = store.BackendSpec{Protocol: store.ProtocolHTTP1, Endpoints: []store.Endpoint{{Address: "a:80", Weight: 1}}}
	spec.Spec.SetDefaults()
	if change != nil {
		change(spec)
	}
	w.Commit(w.Prepare(&store.Set{Backends: []*store.Backend{spec}}))()
	return w.Backend(spec.Key())
}

// get asks the backend's endpoint, which the caller releases.
func get(t testing.TB, b *Backend, path string) (*Endpoint, *http.Response, error) {
	t.Helper()
	e, _ := b.Pick(balance.Request{})
	if e == nil {
		t.Fatal("no endpoint")
	}
	r, err := http.NewRequest("GET", "http://ignored"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "shop"
	res, err := e.RoundTrip(r)
	return e, res, err
}

func finish(t testing.TB, e *Endpoint, res *http.Response) string {
	t.Helper()
	defer e.Release()
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Error(err)
	}
	return string(body)
}

func TestHTTP1EndpointStandsBackUntilItAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newPlainWorld(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Host+r.RequestURI) })
		refused := errors.New("refused")
		w.refuse.Store(&refused)
		b := w.apply(nil)
		e, _, err := get(t, b, "/x%2Fy?z")
		e.Release()
		if !errors.Is(err, ErrDown) || !errors.Is(err, refused) {
			t.Fatalf("got %v, want ErrDown", err)
		}
		if e.Usable() || b.Down() == nil {
			t.Error("it passes for usable")
		}
		time.Sleep(30 * time.Second)
		if n := w.tries.Load(); n < 5 || n > 20 {
			t.Errorf("%d dials in 30 s", n)
		}
		if n := strings.Count(w.log.String(), "endpoint not reached"); n != 1 {
			t.Errorf("logged %d times", n)
		}
		w.refuse.Store(nil)
		time.Sleep(backoffMax)
		synctest.Wait()
		if !e.Usable() || b.Down() != nil {
			t.Error("it does not pass for usable again")
		}
		tries := w.tries.Load()
		time.Sleep(time.Minute)
		if n := w.tries.Load(); n != tries {
			t.Errorf("%d more dials of an endpoint that is well", n-tries)
		}
		e, res, err := get(t, b, "/x%2Fy?z")
		if err != nil {
			t.Fatal(err)
		}
		if body := finish(t, e, res); body != "shop/x%2Fy?z" {
			t.Errorf("got %q", body)
		}
		w.stop()
	})
}

func TestHTTP1EndpointIsNotTheGatewayItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newPlainWorld(t, func(w http.ResponseWriter, r *http.Request) {})
		at := netip.MustParseAddrPort("127.0.0.1:8080")
		w.Own = func(a netip.AddrPort) bool { return a == at }
		reach, closed := w.Pool.dial, new(atomic.Int64)
		w.Pool.dial = func(ctx context.Context, address string) (net.Conn, error) {
			nc, err := reach(ctx, address)
			return placed{nc, at, closed}, err
		}
		e, _, err := get(t, w.apply(nil), "/")
		e.Release()
		if !errors.Is(err, ErrDown) || !errors.Is(err, errItself) {
			t.Fatalf("got %v, want that it is the gateway itself", err)
		}
		time.Sleep(30 * time.Second)
		if n := w.tries.Load(); n < 5 || n > 20 || closed.Load() != int64(n) {
			t.Errorf("%d dials in 30 s, %d closed", n, closed.Load())
		}
		w.stop()
	})
}

func TestHTTP1EndpointGivesUpADial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newPlainWorld(t, nil)
		w.mute.Store(true)
		b := w.apply(func(s *store.Backend) { s.Spec.ConnectTimeout = store.Duration(3 * time.Second) })
		start := time.Now()
		e, _, err := get(t, b, "/")
		e.Release()
		if took := time.Since(start); !errors.Is(err, ErrDown) || took != 3*time.Second {
			t.Errorf("got %v after %v", err, took)
		}
		w.stop()
	})
}

func TestHTTP1EndpointBoundsItsConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		w := newPlainWorld(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/slow" {
				w.(http.Flusher).Flush()
				<-release
			}
		})
		two := func(s *store.Backend) { s.Spec.Connection.MaxConnections = 2 }
		b := w.apply(two)
		for range 10 { // one after the other on one connection
			e, res, err := get(t, b, "/")
			if err != nil {
				t.Fatal(err)
			}
			finish(t, e, res)
		}
		if n := w.tries.Load(); n != 1 {
			t.Errorf("%d dials for 10 requests in a row", n)
		}
		var open []*http.Response
		var e *Endpoint
		for range 2 {
			var res *http.Response
			var err error
			if e, res, err = get(t, b, "/slow"); err != nil {
				t.Fatal(err)
			}
			open = append(open, res)
		}
		if _, _, err := get(t, b, "/"); !errors.Is(err, ErrFull) {
			t.Errorf("a third: %v, want ErrFull", err)
		}
		e.Release()
		b = w.apply(func(s *store.Backend) { s.Spec.Connection.MaxConnections = 3 })
		if again, res, err := get(t, b, "/"); err != nil || again != e {
			t.Errorf("a third of three: %v", err)
		} else {
			finish(t, again, res)
		}
		if n := e.Connections(); n != 3 {
			t.Errorf("%d connections, want 3", n)
		}
		close(release)
		for _, res := range open {
			finish(t, e, res)
		}
		time.Sleep(idleHTTP1 + time.Second)
		if n := e.Connections(); n != 0 {
			t.Errorf("%d idle connections are left", n)
		}
		w.stop()
	})
}

// TestHTTP1EndpointWaitsForAnAnswerWithinBounds: a backend that never answers.
func TestHTTP1EndpointWaitsForAnAnswerWithinBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newPlainWorld(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		b := w.apply(nil)
		start := time.Now()
		e, _, err := get(t, b, "/")
		e.Release()
		var timeout net.Error
		if took := time.Since(start); !errors.As(err, &timeout) || !timeout.Timeout() || took != ResponseTimeout {
			t.Errorf("got %v after %v", err, took)
		}
		if errors.Is(err, ErrDown) || !e.Usable() {
			t.Error("an endpoint that is slow passes for one that cannot be reached")
		}
		w.stop()
	})
}

// TestHTTP1EndpointIsRetiredGently: what is open ends as it would have; nothing is left.
func TestHTTP1EndpointIsRetiredGently(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		w := newPlainWorld(t, func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "first ")
			w.(http.Flusher).Flush()
			<-release
			io.WriteString(w, "last")
		})
		b := w.apply(nil)
		e, res, err := get(t, b, "/")
		if err != nil {
			t.Fatal(err)
		}
		w.Commit(w.Prepare(&store.Set{}))()
		time.Sleep(3 * linger)
		r, _ := http.NewRequest("GET", "http://x/", nil)
		if _, err := e.RoundTrip(r); !errors.Is(err, ErrRetired) {
			t.Errorf("got %v, want ErrRetired", err)
		}
		close(release)
		if body := finish(t, e, res); body != "first last" {
			t.Errorf("got %q", body)
		}
		synctest.Wait()
		if n := e.Connections(); n != 0 {
			t.Errorf("%d connections are left", n)
		}
		w.stop()
	})
}

// TestHTTP1EndpointEndsWithThePool: no connection outlives it.
func TestHTTP1EndpointEndsWithThePool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newPlainWorld(t, func(w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		})
		e, res, err := get(t, w.apply(nil), "/")
		if err != nil {
			t.Fatal(err)
		}
		w.stop()
		synctest.Wait()
		if _, err := io.ReadAll(res.Body); err == nil {
			t.Error("the response ended well")
		}
		res.Body.Close()
		e.Release()
		if n := e.Connections(); n != 0 {
			t.Errorf("%d connections are left", n)
		}
	})
}

// TestHTTP1EndpointIsAnotherThanThatOfHTTP2 at the same address.
func TestHTTP1EndpointIsAnotherThanThatOfHTTP2(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newPlainWorld(t, nil)
		plain := w.apply(nil)
		if other := w.apply(func(s *store.Backend) { s.Spec.Protocol = store.ProtocolH2C }); other.Endpoints[0] == plain.Endpoints[0] || other.HTTP() || !plain.HTTP() {
			t.Error("one endpoint speaks both")
		}
		w.stop()
	})
}

func TestHTTP1EndpointSpeaksTLS(t *testing.T) {
	t.Parallel()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto, " ", r.TLS.ServerName) }))
	s.EnableHTTP2 = true
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.StartTLS()
	defer s.Close()
	pool := NewPool(h2.NewEngine(h2.Limits{}), slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { pool.Run(ctx) })
	defer wg.Wait()
	defer cancel()
	good := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
	for _, tt := range []struct{ name, ca, want string }{
		{"a server that is known", good, "HTTP/1.1 example.com"},
		{"a stranger", newAuthority(t).pem, ""},
	} {
		spec := &store.Backend{Meta: store.Meta{Name: "a"}}
		spec.Spec = store.BackendSpec{
			Protocol: store.ProtocolHTTP1, TLS: &store.BackendTLS{CA: tt.ca, ServerName: "example.com"},
			Endpoints: []store.Endpoint{{Address: s.Listener.Addr().String(), Weight: 1}},
		}
		spec.Spec.SetDefaults()
		pool.Commit(pool.Prepare(&store.Set{Backends: []*store.Backend{spec}}))()
		e, res, err := get(t, pool.Backend(spec.Key()), "/")
		if tt.want == "" {
			e.Release()
			if !errors.Is(err, ErrDown) || !strings.Contains(err.Error(), "tls with ") {
				t.Errorf("%s: %v", tt.name, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(tt.name, err)
		}
		if body := finish(t, e, res); body != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, body, tt.want)
		}
	}
}

// Whoever is back is seen to be, and one that refuses once more is found again as soon as
// any: nobody rests on what the last outage was like.
func TestHTTP1EndpointIsSeenToBeBackAtOnce(t *testing.T) {
	for name, back := range map[string]func(t *testing.T, b *Backend){
		"by itself": func(*testing.T, *Backend) {},
		"by a request": func(t *testing.T, b *Backend) {
			e, res, err := get(t, b, "/")
			if err != nil {
				t.Fatal(err)
			}
			finish(t, e, res)
			e.http.transport.Load().CloseIdleConnections()
			time.Sleep(2 * askAgain)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newPlainWorld(t, func(http.ResponseWriter, *http.Request) {})
				b := w.apply(nil)
				gone := errors.New("gone")
				refused := func() {
					w.refuse.Store(&gone)
					e, _, err := get(t, b, "/")
					if err == nil {
						t.Fatal("it was reached")
					}
					e.Done(Result{})
				}
				refused()
				e := b.Endpoints[0]
				time.Sleep(time.Minute)
				w.refuse.Store(nil)
				back(t, b)
				for e.Condition() != 0 {
					time.Sleep(time.Millisecond)
				}
				synctest.Wait()
				if s := e.Status(); s.State != StateHealthy {
					t.Errorf("it is back, and %s: %s", s.State, s.Why)
				}
				refused()
				w.refuse.Store(nil)
				time.Sleep(3 * backoffMin)
				if s := e.Status(); s.State != StateHealthy {
					t.Errorf("it refused once, and is %s: %s", s.State, s.Why)
				}
			})
		})
	}
}
