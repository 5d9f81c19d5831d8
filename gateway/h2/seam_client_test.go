package h2

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// dialled is a round tripper over one connection of ours.
type dialled struct {
	RoundTripper
	conn *Conn
	open atomic.Int64 // streams whose release has not been called
}

func newDialled(c *Conn) *dialled {
	d := &dialled{conn: c}
	d.RoundTripper.Open = func(ctx context.Context, s *Stream, o *Opening, b *Batch) (func(), error) {
		if err := c.Open(s, o, b); err != nil {
			return nil, err
		}
		d.open.Add(1)
		return func() { d.open.Add(-1) }, nil
	}
	return d
}

// dialOracle connects to a handler behind net/http's server.
func dialOracle(t testing.TB, handler http.HandlerFunc) *dialled {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	srv := &http.Server{Handler: handler, Protocols: p}
	go srv.Serve(l)
	eng := NewEngine(Limits{})
	t.Cleanup(func() {
		srv.Close()
		wantNothingLeft(t, eng)
	})
	return dial(t, eng, l.Addr().String())
}

// dial returns a connection that is ready. It ends with the test.
func dial(t testing.TB, eng *Engine, addr string) *dialled {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	rec := newRecorder()
	c := eng.NewClient(NewTransport(nc, nil), rec, 0)
	ctx, cancel := context.WithCancel(context.Background())
	var ran sync.WaitGroup
	ran.Go(func() { c.Run(ctx) })
	transportAwait(t, "the server is ready", func() bool {
		rec.mu.Lock()
		defer rec.mu.Unlock()
		return len(rec.events) > 0
	})
	d := newDialled(c)
	t.Cleanup(func() {
		transportAwait(t, "all streams are released", func() bool { return d.open.Load() == 0 })
		cancel()
		ran.Wait()
	})
	return d
}

func oracleRequest(t testing.TB, method, path string, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://shop.example.com"+path, body)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

func TestRoundTripperCarriesBodies(t *testing.T) {
	d := dialOracle(t, func(w http.ResponseWriter, r *http.Request) {
		if want := r.Header.Get("X-Want-Length"); want != fmt.Sprint(r.ContentLength) {
			t.Errorf("content length %d, want %s", r.ContentLength, want)
		}
		io.Copy(w, r.Body)
	})
	for _, size := range []int{0, 1, 16384, 100_000, 3 << 20} {
		for _, sized := range []bool{true, false} {
			t.Run(fmt.Sprintf("%d/sized %v", size, sized), func(t *testing.T) {
				want := noise(size, uint64(size))
				var body io.Reader = bytes.NewReader(want)
				length := fmt.Sprint(size)
				if !sized {
					body, length = unsized{body}, "-1"
				}
				req := oracleRequest(t, "POST", "/", body)
				req.Header.Set("X-Want-Length", length)
				res, err := d.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				if got, err := io.ReadAll(res.Body); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%d bytes, %v; want %d", len(got), err, size)
				}
			})
		}
	}
}

func TestRoundTripperWritesRequests(t *testing.T) {
	for _, tt := range []struct {
		name string
		edit func(r *http.Request)
		want string
		end  bool
	}{
		{"plain", func(r *http.Request) {}, ":method: GET, :scheme: http, :authority: shop.example.com, :path: /a%20b?q=1", true},
		{"host of its own", func(r *http.Request) { r.Host = "other.example" }, ":method: GET, :scheme: http, :authority: other.example, :path: /a%20b?q=1", true},
		{"no method and no scheme", func(r *http.Request) { r.Method, r.URL.Scheme = "", "" }, ":method: GET, :scheme: http, :authority: shop.example.com, :path: /a%20b?q=1", true},
		{"empty path", func(r *http.Request) { r.URL.Path, r.URL.RawQuery = "", "" }, ":method: GET, :scheme: http, :authority: shop.example.com, :path: /", true},
		{"what belongs to a hop", func(r *http.Request) {
			for _, name := range []string{"Connection", "Keep-Alive", "Proxy-Connection", "Transfer-Encoding", "Upgrade", "Host"} {
				r.Header.Set(name, "x")
			}
			r.Header.Set("Te", "gzip")
		}, ":method: GET, :scheme: http, :authority: shop.example.com, :path: /a%20b?q=1", true},
		{"te", func(r *http.Request) { r.Header.Set("Te", "trailers") }, ":method: GET, :scheme: http, :authority: shop.example.com, :path: /a%20b?q=1, te: trailers", true},
		{
			"secrets", func(r *http.Request) { r.Header.Set("Authorization", "Bearer x") },
			":method: GET, :scheme: http, :authority: shop.example.com, :path: /a%20b?q=1, !authorization: Bearer x", true,
		},
		{
			"invalid fields", func(r *http.Request) { r.Header["Bad Name"] = []string{"x"}; r.Header.Set("X", "a\nb") },
			":method: GET, :scheme: http, :authority: shop.example.com, :path: /a%20b?q=1", true,
		},
		{"body with a length", func(r *http.Request) {
			r.Method, r.Body, r.ContentLength = "POST", io.NopCloser(strings.NewReader("abc")), 3
		}, ":method: POST, :scheme: http, :authority: shop.example.com, :path: /a%20b?q=1, content-length: 3", false},
		{
			"body that is empty", func(r *http.Request) { r.Method, r.Body = "POST", http.NoBody },
			":method: POST, :scheme: http, :authority: shop.example.com, :path: /a%20b?q=1, content-length: 0", true,
		},
		{"trailers", func(r *http.Request) {
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader("abc")), -1
			r.Trailer = http.Header{"X-Sum": {"7"}}
		}, ":method: GET, :scheme: http, :authority: shop.example.com, :path: /a%20b?q=1, trailer: X-Sum", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p := greetedClient(t, Limits{})
				d := newDialled(p.conn)
				req := oracleRequest(t, "GET", "/a%20b?q=1", nil)
				tt.edit(req)
				var wg sync.WaitGroup
				wg.Go(func() {
					res, err := d.RoundTrip(req)
					if err != nil {
						t.Error(err)
						return
					}
					res.Body.Close()
				})
				p.wantFrame("a request", debugHeaders{1, tt.want, tt.end})
				p.writeResponse(1, true)
				wg.Wait()
			})
		})
	}
}

// The time that remains goes along when the request asks for it.
func TestRoundTripperSendsTheTimeThatRemains(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedClient(t, Limits{})
		d := newDialled(p.conn)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		req, _ := http.NewRequestWithContext(ctx, "POST", "http://x/", nil)
		req.Header.Set("Grpc-Timeout", "10S")
		start := time.Now()
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := d.RoundTrip(req); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 3*time.Second {
				t.Errorf("%v after %v; want %v after 3s", err, time.Since(start), context.DeadlineExceeded)
			}
		})
		p.wantFrame("a request", debugHeaders{1, ":method: POST, :scheme: http, :authority: x, :path: /, grpc-timeout: 3000000u, content-length: 0", true})
		wg.Wait()
		p.skipUntil("the client is gone", debugReset{1, http2.ErrCodeCancel})
	})
}

func TestRoundTripperReadsResponses(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedClient(t, Limits{})
		d := newDialled(p.conn)
		req := oracleRequest(t, "GET", "/", nil)
		answer := make(chan *http.Response)
		go func() {
			res, err := d.RoundTrip(req)
			if err != nil {
				t.Error(err)
			}
			answer <- res
		}()
		p.skipFrames()
		p.writeHeaders(1, false, ":status: 103", "link: x")
		p.writeHeaders(1, false, ":status: 203", "content-length: 4", "x-many: 1", "x-many: 2", "set-cookie: a=b", "set-cookie: c=d", "trailer: x-sum")
		res := <-answer
		if res.StatusCode != 203 || res.Status != "203 Non-Authoritative Information" || res.Proto != "HTTP/2.0" || res.ProtoMajor != 2 ||
			res.ContentLength != 4 || res.Request != req || fmt.Sprint(res.Header["X-Many"], res.Cookies()) != "[1 2] [a=b c=d]" {
			t.Errorf("response %+v", res)
		}
		p.writeData(1, "body", false)
		p.writeHeaders(1, true, "x-sum: 7")
		p.wantIdle("nothing was read")
		if len(res.Trailer["X-Sum"]) != 0 {
			t.Errorf("trailers before the end: %v", res.Trailer)
		}
		if b, err := io.ReadAll(res.Body); string(b) != "body" || err != nil {
			t.Errorf("body %q, %v", b, err)
		}
		if res.Trailer.Get("X-Sum") != "7" {
			t.Errorf("trailers %v", res.Trailer)
		}
		res.Body.Close()
		res.Body.Close()
		if _, err := res.Body.Read(make([]byte, 1)); err == nil || err == io.EOF {
			t.Errorf("read after Close: %v", err)
		}
		if d.open.Load() != 0 {
			t.Error("the stream was not released, or more than once")
		}
		p.wantIdle("the stream came to its own end")
	})
}

func TestRoundTripperReadsResponsesWithoutContent(t *testing.T) {
	d := dialOracle(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/204":
			w.WriteHeader(204)
		case "/304":
			w.Header().Set("Content-Length", "5")
			w.WriteHeader(304)
		default:
			io.WriteString(w, "hello")
		}
	})
	for _, tt := range []struct {
		method, path string
		length       int64
	}{{"HEAD", "/", 5}, {"GET", "/204", 0}, {"GET", "/304", 5}} {
		res, err := d.RoundTrip(oracleRequest(t, tt.method, tt.path, nil))
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		res.Body.Close()
		if len(b) != 0 || err != nil || res.ContentLength != tt.length {
			t.Errorf("%s %s: body %q, %v, length %d; want none, nil, %d", tt.method, tt.path, b, err, res.ContentLength, tt.length)
		}
	}
}

func TestRoundTripperTradesTrailersWithTheOracle(t *testing.T) {
	d := dialOracle(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Back")
		io.Copy(w, r.Body)
		w.Header().Set("X-Back", r.Trailer.Get("X-Sum"))
	})
	req := oracleRequest(t, "POST", "/", unsized{strings.NewReader("body")})
	req.Trailer = http.Header{"X-Sum": nil}
	req.Body = &onEOF{req.Body, func() { req.Trailer.Set("X-Sum", "42") }}
	res, err := d.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); string(b) != "body" || err != nil {
		t.Errorf("body %q, %v", b, err)
	}
	if got := res.Trailer.Get("X-Back"); got != "42" {
		t.Errorf("trailers %v", res.Trailer)
	}
}

// stuckBody blocks in Read until it is closed, and then, as the body of an HTTP/1
// request does, in Close until Read returns.
type stuckBody struct {
	free   chan struct{}
	closed atomic.Bool
}

func (b *stuckBody) Read([]byte) (int, error) { <-b.free; return 0, io.ErrUnexpectedEOF }
func (b *stuckBody) Close() error             { b.closed.Store(true); <-b.free; return nil }

// However a round trip ends before its time, it ends at once, its stream is reset
// and its request body closed.
func TestRoundTripperGivesUp(t *testing.T) {
	gone := errors.New("gone")
	for _, tt := range []struct {
		name string
		end  func(p *peer, cancel context.CancelCauseFunc)
		want error
		code http2.ErrCode // of our reset, 0 = none
	}{
		{"cancelled", func(p *peer, cancel context.CancelCauseFunc) { cancel(gone) }, gone, http2.ErrCodeCancel},
		{
			"reset", func(p *peer, _ context.CancelCauseFunc) { p.writeReset(1, http2.ErrCodeInternal) },
			&StreamError{Ending{How: PeerReset, Code: http2.ErrCodeInternal}}, 0,
		},
		{
			"refused", func(p *peer, _ context.CancelCauseFunc) { p.writeReset(1, http2.ErrCodeRefusedStream) },
			&StreamError{Ending{How: PeerReset, Code: http2.ErrCodeRefusedStream, Unprocessed: true}}, 0,
		},
		{
			"connection lost", func(p *peer, _ context.CancelCauseFunc) { p.nc.Close() },
			&StreamError{Ending{How: ConnectionLost}}, 0,
		},
		{
			"gone away", func(p *peer, _ context.CancelCauseFunc) { p.writeGoAway(0, http2.ErrCodeNo, "") },
			&StreamError{Ending{How: PeerGoneAway, Unprocessed: true}}, 0,
		},
		{
			"malformed", func(p *peer, _ context.CancelCauseFunc) { p.writeHeaders(1, false, ":status: 20") },
			&StreamError{Ending{How: Violation, Code: http2.ErrCodeProtocol}}, http2.ErrCodeProtocol,
		},
		{
			"header too large", func(p *peer, _ context.CancelCauseFunc) {
				p.writeHeaders(1, false, sized(20_000, []string{":status: 200"})...)
			},
			&StreamError{Ending{How: HeadersLarge, Code: http2.ErrCodeEnhanceYourCalm}}, http2.ErrCodeCancel,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p := greetedClient(t, Limits{})
				d := newDialled(p.conn)
				ctx, cancel := context.WithCancelCause(t.Context())
				body := &stuckBody{free: make(chan struct{})}
				defer close(body.free)
				req, _ := http.NewRequestWithContext(ctx, "POST", "http://x/", body)
				failed := make(chan error, 1)
				go func() {
					_, err := d.RoundTrip(req)
					failed <- err
				}()
				p.skipFrames()
				tt.end(p, cancel)
				p.ended()
				select {
				case err := <-failed:
					if fmt.Sprint(err) != fmt.Sprint(tt.want) {
						t.Errorf("got %v, want %v", err, tt.want)
					}
				default:
					t.Fatal("the round trip goes on")
				}
				if !body.closed.Load() {
					t.Error("the request's body was not closed")
				}
				if d.open.Load() != 0 {
					t.Error("the stream was not released")
				}
				frames := p.skipFrames()
				if tt.code != 0 && (len(frames) == 0 || frames[0] != debugFrame(debugReset{1, tt.code})) {
					t.Errorf("got frames %v; want a reset with %v", frames, tt.code)
				}
			})
		})
	}
}

// The same in the middle of a response.
func TestRoundTripperGivesUpAResponse(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(p *peer, res *http.Response, cancel context.CancelFunc)
		code http2.ErrCode
	}{
		{"cancelled", func(p *peer, res *http.Response, cancel context.CancelFunc) { cancel() }, http2.ErrCodeCancel},
		{"closed", func(p *peer, res *http.Response, cancel context.CancelFunc) { res.Body.Close() }, http2.ErrCodeCancel},
		{"reset", func(p *peer, res *http.Response, cancel context.CancelFunc) { p.writeReset(1, http2.ErrCodeInternal) }, 0},
		{"lost", func(p *peer, res *http.Response, cancel context.CancelFunc) { p.nc.Close() }, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p := greetedClient(t, Limits{})
				d := newDialled(p.conn)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				req, _ := http.NewRequestWithContext(ctx, "GET", "http://x/", nil)
				answer := make(chan *http.Response, 1)
				go func() {
					res, err := d.RoundTrip(req)
					if err != nil {
						t.Error(err)
					}
					answer <- res
				}()
				p.skipFrames()
				p.writeResponse(1, false)
				p.writeData(1, "part", false)
				p.ended()
				res := <-answer
				tt.end(p, res, cancel)
				p.ended()
				b, err := io.ReadAll(res.Body)
				if err == nil {
					t.Errorf("read %q and no error", b)
				}
				res.Body.Close()
				if d.open.Load() != 0 {
					t.Error("the stream was not released")
				}
				if tt.code != 0 {
					p.wantFrame("the backend may stop", debugReset{1, tt.code})
				}
			})
		})
	}
}

// A response may be complete before its request: the rest is not sent.
func TestRoundTripperTakesAnEarlyResponse(t *testing.T) {
	d := dialOracle(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		io.WriteString(w, "too large")
	})
	for range 20 {
		body, w := io.Pipe()
		var sent sync.WaitGroup
		sent.Go(func() {
			for {
				if _, err := w.Write(make([]byte, 16<<10)); err != nil {
					return
				}
			}
		})
		res, err := d.RoundTrip(oracleRequest(t, "POST", "/", body))
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(res.Body); string(b) != "too large" || err != nil || res.StatusCode != 413 {
			t.Errorf("status %d, body %q, %v", res.StatusCode, b, err)
		}
		res.Body.Close()
		sent.Wait()
	}
}

// A request body that fails is not a request that ends.
func TestRoundTripperResetsWhenTheBodyFails(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := greetedClient(t, Limits{})
		d := newDialled(p.conn)
		broken := errors.New("disk on fire")
		body := io.MultiReader(strings.NewReader("part"), errReader{broken})
		failed := make(chan error, 1)
		go func() {
			_, err := d.RoundTrip(oracleRequest(t, "POST", "/", body))
			failed <- err
		}()
		p.skipUntil("what there was", debugData{1, "part", false})
		p.wantFrame("it was not the end", debugReset{1, http2.ErrCodeCancel})
		p.ended()
		select {
		case err := <-failed:
			if !errors.Is(err, broken) {
				t.Errorf("got %v, want %v", err, broken)
			}
		default:
			t.Error("the round trip waits for an answer that will not come")
			p.nc.Close()
			<-failed
		}
	})
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

func TestRoundTripperReportsThatItCannotOpen(t *testing.T) {
	full := errors.New("no connection")
	rt := RoundTripper{Open: func(context.Context, *Stream, *Opening, *Batch) (func(), error) { return nil, full }}
	body := &stuckBody{free: make(chan struct{})}
	close(body.free)
	if _, err := rt.RoundTrip(oracleRequest(t, "POST", "/", body)); err != full || !body.closed.Load() {
		t.Errorf("got %v, body closed %v; want %v, true", err, body.closed.Load(), full)
	}
	if _, err := rt.RoundTrip(oracleRequest(t, "GET", "/", nil)); err != full {
		t.Errorf("got %v, want %v", err, full)
	}
}

// What is not read of a response stays in the stream's window.
func TestRoundTripperPressesBack(t *testing.T) {
	var written atomic.Int64
	d := dialOracle(t, func(w http.ResponseWriter, r *http.Request) {
		buf := make([]byte, 4<<10)
		for range 4 << 20 / len(buf) {
			n, err := w.Write(buf)
			if written.Add(int64(n)); err != nil {
				return
			}
		}
	})
	res, err := d.RoundTrip(oracleRequest(t, "GET", "/", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	for range 5 { // each is a round trip, and more than enough for a window
		quick, err := d.RoundTrip(oracleRequest(t, "HEAD", "/", nil))
		if err != nil {
			t.Fatal(err)
		}
		quick.Body.Close()
	}
	if n := written.Load() - 5*(4<<20); n > 64<<10 {
		t.Errorf("%d bytes were written that nobody reads, with a window of %d", n, upstreamWindow)
	}
	if n, err := io.Copy(io.Discard, res.Body); n != 4<<20 || err != nil {
		t.Errorf("read %d bytes, %v", n, err)
	}
}

func TestRoundTripperRunsInFullDuplex(t *testing.T) {
	d := dialOracle(t, func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		w.(http.Flusher).Flush()
		buf := make([]byte, 100)
		for {
			n, err := r.Body.Read(buf)
			if err != nil {
				return
			}
			w.Write(bytes.ToUpper(buf[:n]))
			w.(http.Flusher).Flush()
		}
	})
	body, w := io.Pipe()
	res, err := d.RoundTrip(oracleRequest(t, "POST", "/", body))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	for _, word := range []string{"one", "two", "three"} {
		io.WriteString(w, word)
		buf := make([]byte, len(word))
		if _, err := io.ReadFull(res.Body, buf); err != nil || string(buf) != strings.ToUpper(word) {
			t.Errorf("echo of %q is %q, %v", word, buf, err)
		}
	}
	w.Close()
	if _, err := res.Body.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("after the end: %v", err)
	}
}

// The two halves face each other.
func TestRoundTripperReachesTheSeam(t *testing.T) {
	srv := newSeamServer(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		n, _ := io.Copy(w, r.Body)
		w.Header().Set("X-Sum", fmt.Sprint(n))
	})
	d := dial(t, srv.eng, strings.TrimPrefix(srv.url, "http://"))
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			want := noise(i*10_000, uint64(i))
			res, err := d.RoundTrip(oracleRequest(t, "POST", "/", unsized{bytes.NewReader(want)}))
			if err != nil {
				t.Error(err)
				return
			}
			defer res.Body.Close()
			if got, err := io.ReadAll(res.Body); err != nil || !bytes.Equal(got, want) || res.Trailer.Get("X-Sum") != fmt.Sprint(len(want)) {
				t.Errorf("%d of %d bytes, %v, trailers %v", len(got), len(want), err, res.Trailer)
			}
		})
	}
	wg.Wait()
}
