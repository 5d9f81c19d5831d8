package h2

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
)

// seamAcceptor sends every stream to the seam.
type seamAcceptor struct {
	seam *Seam
	peer Peer
}

func (a seamAcceptor) AcceptStream(s *Stream, h *Head, end bool, b *Batch) {
	a.seam.Serve(s, h, end, a.peer, b)
}

// servedPeer is a client of a handler, past the greeting, in a bubble.
func servedPeer(t testing.TB, handler http.HandlerFunc) *peer {
	t.Helper()
	p, _ := servedPeerLogged(t, handler)
	return p
}

func servedPeerLogged(t testing.TB, handler http.HandlerFunc) (*peer, *bytes.Buffer) {
	t.Helper()
	log := new(bytes.Buffer)
	seam := NewSeam(handler, slog.New(slog.NewTextHandler(log, nil)))
	t.Cleanup(seam.Wait)
	ours, theirs := newMemoryConns(pipeRoom)
	p := newPeer(t, NewEngine(Limits{}), theirs, newRecorder())
	acceptor := seamAcceptor{seam, Peer{RemoteAddr: "192.0.2.1:1234"}}
	p.run(p.eng.NewServer(NewTransport(ours, nil), acceptor, time.Now()))
	p.greet()
	return p, log
}

// The bubble's clock begins here.
const bubbleDate = "date: Sat, 01 Jan 2000 00:00:00 GMT"

// wantResponse expects one header section with these fields, in any order, and the
// date.
func (p *peer) wantResponse(reason string, id uint32, end bool, want ...string) {
	p.t.Helper()
	f := p.next()
	h, ok := f.(debugHeaders)
	if !ok || h.id != id || h.end != end {
		p.t.Fatalf("%s: got frame %v; want HEADERS %d with end %v%s", reason, f, id, end, p.ending())
	}
	var got []string
	for i := range p.fields {
		got = append(got, joinFields(p.fields[i:i+1]))
	}
	slices.Sort(got)
	want = append([]string{bubbleDate}, want...)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		p.t.Fatalf("%s: got fields %q; want %q", reason, got, want)
	}
}

func TestSeamMakesARequest(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := servedPeer(t, func(w http.ResponseWriter, r *http.Request) {
			defer w.WriteHeader(http.StatusNoContent)
			for _, tt := range []struct {
				what      string
				got, want any
			}{
				{"method", r.Method, "PUT"},
				{"path", r.URL.Path, "/a b/c"},
				{"raw path", r.URL.RawPath, ""},
				{"query", r.URL.RawQuery, "q=1"},
				{"request URI", r.RequestURI, "/a%20b/c?q=1"},
				{"host", r.Host, "shop.example.com"},
				{"host field", r.Header.Get("Host"), ""},
				{"field", r.Header["X-Many"], []string{"1", "2"}},
				{"cookie", r.Header["Cookie"], []string{"a=b; c=d"}},
				{"protocol", r.Proto, "HTTP/2.0"},
				{"at least 2", r.ProtoAtLeast(2, 0), true},
				{"address", r.RemoteAddr, "192.0.2.1:1234"},
				{"length", r.ContentLength, int64(-1)},
				{"pseudo-field", r.Header[":path"], []string(nil)},
			} {
				if fmt.Sprint(tt.got) != fmt.Sprint(tt.want) {
					t.Errorf("%s is %v, want %v", tt.what, tt.got, tt.want)
				}
			}
		})
		p.writeHeaders(1, false, ":method: PUT", ":scheme: http", ":path: /a%20b/c?q=1", ":authority: shop.example.com",
			"x-many: 1", "cookie: a=b", "x-many: 2", "cookie: c=d")
		p.wantResponse("an answer without content", 1, true, ":status: 204")
		p.wantFrame("the rest of the request is not wanted", debugReset{1, http2.ErrCodeNo})
	})
}

func TestSeamMakesRequestsOfOddPaths(t *testing.T) {
	for _, tt := range []struct{ method, path, want string }{
		{"OPTIONS", "*", "*"},
		{"GET", "//evil.example/x", "//evil.example/x"},
		{"GET", "/%zz", "/%zz"}, // no URL: as it is
		{"GET", "/a/../b", "/a/../b"},
	} {
		t.Run(tt.path, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p := servedPeer(t, func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path != tt.want || r.RequestURI != tt.path || r.URL.Host != "" {
						t.Errorf("path %q, URI %q, URL's host %q; want path %q", r.URL.Path, r.RequestURI, r.URL.Host, tt.want)
					}
					if _, ok := r.Body.(*body); ok || r.ContentLength != 0 {
						t.Errorf("a request that has ended has a body %T of %d bytes", r.Body, r.ContentLength)
					}
				})
				p.writeHeaders(1, true, ":method: "+tt.method, ":scheme: http", ":path: "+tt.path, ":authority: x")
				p.wantResponse("an empty answer", 1, true, ":status: 200", "content-length: 0")
			})
		})
	}
}

func TestSeamWritesResponses(t *testing.T) {
	const text = "text/plain; charset=utf-8"
	for _, tt := range []struct {
		name   string
		method string
		serve  func(w http.ResponseWriter, r *http.Request)
		header []string
		body   string
		end    bool // of the header
	}{
		{"nothing", "GET", func(w http.ResponseWriter, r *http.Request) {}, []string{":status: 200", "content-length: 0"}, "", true},
		{"status", "GET", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(404) }, []string{":status: 404", "content-length: 0"}, "", true},
		{
			"short body", "GET", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") },
			[]string{":status: 200", "content-length: 5", "content-type: " + text},
			"hello", false,
		},
		{
			"body in pieces", "GET", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hel"); io.WriteString(w, "lo") },
			[]string{":status: 200", "content-length: 5", "content-type: " + text},
			"hello", false,
		},
		{"content type of its own", "GET", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/x")
			io.WriteString(w, "hello")
		}, []string{":status: 200", "content-length: 5", "content-type: application/x"}, "hello", false},
		{"no content type at all", "GET", func(w http.ResponseWriter, r *http.Request) {
			w.Header()["Content-Type"] = nil
			io.WriteString(w, "hello")
		}, []string{":status: 200", "content-length: 5"}, "hello", false},
		{"field of the handler", "GET", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Add("X-Many", "1")
			w.Header().Add("X-Many", " 2 ")
			w.Header().Set("Connection", "close")
			w.Header().Set("X-Bad", "a\nb")
			w.Header().Set("Bad Name", "a")
			w.Header()[":path"] = []string{"/"}
		}, []string{":status: 200", "content-length: 0", "x-many: 1", "x-many: 2"}, "", true},
		{"header after WriteHeader", "GET", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Early", "1")
			w.WriteHeader(201)
			w.Header().Set("X-Late", "1")
			w.Header().Set("X-Early", "2")
			w.WriteHeader(500)
			io.WriteString(w, "x")
		}, []string{":status: 201", "content-length: 1", "x-early: 1", "content-type: " + text}, "x", false},
		{
			"HEAD", "HEAD", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") },
			[]string{":status: 200", "content-length: 5", "content-type: " + text},
			"", true,
		},
		{
			"HEAD with a length", "HEAD", func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Content-Length", "77") },
			[]string{":status: 200", "content-length: 77"},
			"", true,
		},
		{"HEAD without anything", "HEAD", func(w http.ResponseWriter, r *http.Request) {}, []string{":status: 200"}, "", true},
		{"HEAD of a long body", "HEAD", func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, strings.Repeat("x", 100_000))
			w.(http.Flusher).Flush()
		}, []string{":status: 200", "content-type: " + text}, "", true},
		{"no content", "GET", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(204)
			if n, err := io.WriteString(w, "x"); n != 0 || err != http.ErrBodyNotAllowed {
				panic(fmt.Sprint("write after 204: ", n, err))
			}
		}, []string{":status: 204"}, "", true},
		{"not modified", "GET", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Etag", `"x"`)
			w.WriteHeader(304)
		}, []string{":status: 304", `etag: "x"`}, "", true},
		{
			"long body", "GET", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, strings.Repeat("x", 10_000)) },
			[]string{":status: 200", "content-type: " + text},
			strings.Repeat("x", 10_000), false,
		},
		{"declared length", "GET", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "3")
			if n, err := io.WriteString(w, "hello"); n != 0 || err != http.ErrContentLength {
				panic(fmt.Sprint("more than declared: ", n, err))
			}
			io.WriteString(w, "hel")
		}, []string{":status: 200", "content-length: 3", "content-type: " + text}, "hel", false},
		{"flush", "GET", func(w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush()
			io.WriteString(w, "x")
		}, []string{":status: 200"}, "x", false},
		{
			"nothing behind a flush", "GET", func(w http.ResponseWriter, r *http.Request) { w.(http.Flusher).Flush() },
			[]string{":status: 200"},
			"", false,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p, log := servedPeerLogged(t, tt.serve)
				p.writeHeaders(1, true, ":method: "+tt.method, ":scheme: http", ":path: /", ":authority: x")
				p.wantResponse("a response", 1, tt.end, tt.header...)
				var got strings.Builder
				for end := tt.end; !end; {
					d, ok := p.next().(debugData)
					if !ok {
						t.Fatalf("no END_STREAM after %q", got.String())
					}
					got.WriteString(d.data)
					end = d.end
				}
				if got.String() != tt.body {
					t.Errorf("got body %q, want %q", got.String(), tt.body)
				}
				p.wantIdle("that is all")
				if log.Len() > 0 {
					t.Errorf("logged %s", log)
				}
			})
		})
	}
}

func TestSeamWritesTrailers(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := servedPeer(t, func(w http.ResponseWriter, r *http.Request) {
			h := w.Header()
			h.Set("Trailer", "X-Sum, grpc-status")
			h.Add("Trailer", "X-Never")
			io.WriteString(w, "body")
			w.(http.Flusher).Flush()
			h.Set("X-Sum", "7")
			h.Set("Grpc-Status", "0")
			h.Set("X-Not-Announced", "1")
			h.Set(http.TrailerPrefix+"X-Late", "2")
		})
		p.writeRequest(1, true)
		p.wantResponse("a response", 1, false, ":status: 200", "trailer: X-Sum, grpc-status", "trailer: X-Never", "content-type: text/plain; charset=utf-8")
		p.wantFrame("body", debugData{1, "body", false})
		p.wantFrame("trailers", debugHeaders{1, "x-sum: 7, grpc-status: 0, x-late: 2", true})
	})
}

// Trailers without a body: the header section does not end the stream.
func TestSeamWritesTrailersBehindNothing(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := servedPeer(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set(http.TrailerPrefix+"Grpc-Status", "5")
		})
		p.writeRequest(1, true)
		p.wantResponse("a response", 1, false, ":status: 200", "content-length: 0")
		p.wantFrame("trailers", debugHeaders{1, "grpc-status: 5", true})
	})
}

func TestSeamReadsBodiesAndTrailers(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := servedPeer(t, func(w http.ResponseWriter, r *http.Request) {
			if _, ok := r.Trailer["X-Sum"]; !ok || r.Trailer.Get("X-Sum") != "" {
				t.Errorf("trailers before the body was read: %v; want the announced name without a value", r.Trailer)
			}
			b, err := io.ReadAll(r.Body)
			if string(b) != "hello, body" || err != nil {
				t.Errorf("read %q, %v", b, err)
			}
			if r.Trailer.Get("X-Sum") != "7" || r.Trailer.Get("X-Not-Announced") != "1" {
				t.Errorf("trailers after the body was read: %v", r.Trailer)
			}
			if n, err := r.Body.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Errorf("read %d, %v after the end", n, err)
			}
		})
		p.writeRequest(1, false, "trailer: x-sum")
		p.wantIdle("the handler reads")
		p.writeData(1, "hello, ", false)
		p.writeData(1, "body", false)
		p.writeHeaders(1, true, "x-sum: 7", "x-not-announced: 1")
		p.wantResponse("an answer", 1, true, ":status: 200", "content-length: 0")
	})
}

// What a handler does not read stays in the stream's window, and no longer.
func TestSeamPressesBack(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		read := make(chan int)
		p := servedPeer(t, func(w http.ResponseWriter, r *http.Request) {
			for n := range read {
				if _, err := io.CopyN(io.Discard, r.Body, int64(n)); err != nil {
					t.Error(err)
				}
			}
		})
		p.writeRequest(1, false)
		for range 4 {
			p.writeData(1, strings.Repeat("x", 16384), false)
		}
		p.wantIdle("nobody has read")
		read <- 30_000
		p.wantIdle("less than half of the window")
		read <- 10_000
		if w, ok := p.next().(debugWindowUpdate); !ok || w.id != 1 || w.n < 32<<10 {
			t.Errorf("got %v; want credit of the stream", w)
		}
		close(read)
		p.skipFrames()
	})
}

func TestSeamDropsABodyThatNobodyReads(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		closed := make(chan struct{})
		p := servedPeer(t, func(w http.ResponseWriter, r *http.Request) {
			r.Body.Close()
			if _, err := r.Body.Read(make([]byte, 1)); err == nil || err == io.EOF {
				t.Errorf("read after Close: %v", err)
			}
			w.(http.Flusher).Flush()
			<-closed
		})
		p.writeRequest(1, false)
		p.wantResponse("the handler is at work", 1, false, ":status: 200")
		for range 8 {
			p.writeData(1, strings.Repeat("x", 8192), false)
		}
		p.wantFrame("it goes back to the client", debugWindowUpdate{1, 32 << 10}, debugWindowUpdate{1, 32 << 10})
		close(closed)
		p.wantFrame("the end", debugData{1, "", true}, debugReset{1, http2.ErrCodeNo})
	})
}

func TestSeamSendsInformationalResponses(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := servedPeer(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "</style.css>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusEarlyHints)
			w.Header().Del("Link")
			w.WriteHeader(http.StatusOK)
			w.WriteHeader(http.StatusEarlyHints) // too late
		})
		p.writeRequest(1, true)
		p.wantFrame("hints",
			debugHeaders{1, ":status: 103, link: </style.css>; rel=preload", false},
			debugHeaders{1, ":status: 103, link: </style.css>; rel=preload", false})
		p.wantResponse("the final one", 1, true, ":status: 200", "content-length: 0")
		p.wantIdle("nothing comes after it")
	})
}

func TestSeamSends100Continue(t *testing.T) {
	for _, tt := range []struct {
		name  string
		serve func(w http.ResponseWriter, r *http.Request)
		want  bool
	}{
		{"to a handler that reads", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Final", "only")
			io.ReadAll(r.Body)
		}, true},
		{"not to one that does not", func(w http.ResponseWriter, r *http.Request) { w.Header().Set("X-Final", "only") }, false},
		{"not after the final header", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Final", "only")
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
			io.ReadAll(r.Body)
		}, false},
		{"from a goroutine beside the handler", func(w http.ResponseWriter, r *http.Request) {
			var wg sync.WaitGroup
			wg.Go(func() { io.ReadAll(r.Body) })
			for range 100 {
				w.Header().Set("X-Final", "only")
			}
			wg.Wait()
		}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p := servedPeer(t, tt.serve)
				p.writeRequest(1, false, "expect: 100-continue")
				if tt.want {
					p.wantFrame("go on", debugHeaders{1, ":status: 100", false})
				}
				first := p.next()
				p.writeData(1, "body", true)
				if first == nil {
					first = p.next()
				}
				if h, ok := first.(debugHeaders); !ok || !strings.HasPrefix(h.fields, ":status: 200, ") || !strings.Contains(h.fields, "x-final: only") {
					t.Fatalf("got %v; want the final header", first)
				}
				for _, f := range p.skipFrames() {
					if h, ok := f.(debugHeaders); ok {
						t.Errorf("%v came after the final header", h)
					}
				}
			})
		})
	}
}

func TestSeamRefusesLargeHeaders(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := servedPeer(t, func(w http.ResponseWriter, r *http.Request) { t.Error("the handler was called") })
		p.writeHeaders(1, false, sized(20_000, requestLines())...)
		p.wantFrame("too large", debugHeaders{1, ":status: 431", true}, debugReset{1, http2.ErrCodeNo})
		p.writeHeaders(3, true, sized(20_000, requestLines())...)
		p.wantFrame("too large", debugHeaders{3, ":status: 431", true})
		p.wantRejected(ReasonHeaders, 2)
	})
}

// However a stream ends before its time, the handler hears of it in all it does.
func TestSeamCancelsHandlers(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(p *peer)
	}{
		{"by the client's reset", func(p *peer) { p.writeReset(1, http2.ErrCodeCancel) }},
		{"by the end of the connection", func(p *peer) { p.nc.Close() }},
		{"by a fault of the client's", func(p *peer) { p.writeWindowUpdate(1, 0) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				var wg sync.WaitGroup
				wg.Add(1)
				p := servedPeer(t, func(w http.ResponseWriter, r *http.Request) {
					defer wg.Done()
					var all sync.WaitGroup
					all.Go(func() {
						<-r.Context().Done()
						if r.Context().Err() != context.Canceled || context.Cause(r.Context()) == context.Canceled {
							t.Errorf("context: %v because of %v", r.Context().Err(), context.Cause(r.Context()))
						}
					})
					all.Go(func() {
						if _, err := io.ReadAll(r.Body); err == nil {
							t.Error("reading: no error")
						}
					})
					if _, err := io.Copy(w, strings.NewReader(strings.Repeat("x", 1<<20))); err == nil {
						t.Error("writing: no error")
					}
					if err := http.NewResponseController(w).Flush(); err == nil {
						t.Error("flushing: no error")
					}
					all.Wait()
				})
				p.writeRequest(1, false)
				p.skipFrames() // the windows are used up
				tt.end(p)
				wg.Wait()
			})
		})
	}
}

// The end of a drain's grace cancels the handler, which may still answer; the end
// of its stream reaches it all the same.
func TestSeamHearsOfTheEndOfADrain(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := servedPeer(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/stubborn" {
				io.ReadAll(r.Body)
				return
			}
			<-r.Context().Done()
			w.WriteHeader(http.StatusServiceUnavailable)
		})
		p.writeHeaders(1, true, ":method: GET", ":scheme: http", ":path: /polite", ":authority: x")
		p.writeHeaders(3, false, ":method: POST", ":scheme: http", ":path: /stubborn", ":authority: x")
		p.wantIdle("both are at work")
		var b Batch
		p.conn.EndStreams(&b)
		b.Flush()
		p.wantResponse("a last word", 1, true, ":status: 503", "content-length: 0")
		p.wantIdle("the other one goes on")
		p.nc.Close() // and servedPeer waits for the handler
	})
}

func TestSeamRunsInFullDuplex(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := servedPeer(t, func(w http.ResponseWriter, r *http.Request) {
			if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
				t.Error(err)
			}
			buf := make([]byte, 10)
			for {
				n, err := r.Body.Read(buf)
				if err != nil {
					return
				}
				w.Write(bytes.ToUpper(buf[:n]))
				w.(http.Flusher).Flush()
			}
		})
		p.writeRequest(1, false)
		for i, word := range []string{"one", "two", "three"} {
			p.writeData(1, word, false)
			if i == 0 {
				p.wantResponse("the answer begins", 1, false, ":status: 200", "content-type: text/plain; charset=utf-8")
			}
			p.wantFrame("echo", debugData{1, strings.ToUpper(word), false})
		}
		p.writeData(1, "", true)
		p.wantFrame("end", debugData{1, "", true})
		p.wantIdle("the stream came to its own end")
	})
}

func TestSeamResetsWhenAHandlerPanics(t *testing.T) {
	for _, tt := range []struct {
		name   string
		panic  any
		begin  bool
		logged bool
	}{
		{"before the response", "boom", false, true},
		{"in the middle of the response", errors.New("boom"), true, true},
		{"on purpose", http.ErrAbortHandler, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p, log := servedPeerLogged(t, func(w http.ResponseWriter, r *http.Request) {
					if tt.begin {
						io.WriteString(w, "part")
						w.(http.Flusher).Flush()
					}
					panic(tt.panic)
				})
				p.writeRequest(1, true)
				p.skipUntil("the response is broken off", debugReset{1, http2.ErrCodeInternal})
				p.wantIdle("only that stream is")
				if got := strings.Contains(log.String(), "panic=boom"); got != tt.logged || got && !strings.Contains(log.String(), "/shop.v1.Cart/Get") {
					t.Errorf("logged %q; want the panic: %v", log, tt.logged)
				}
			})
		})
	}
}

func TestSeamKeepsDeadlines(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		done := make(chan struct{})
		p := servedPeer(t, func(w http.ResponseWriter, r *http.Request) {
			defer close(done)
			c := http.NewResponseController(w)
			start := time.Now()
			if err := c.SetReadDeadline(start.Add(time.Second)); err != nil {
				t.Error(err)
			}
			if _, err := r.Body.Read(make([]byte, 1)); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
				t.Errorf("reading: %v after %v", err, time.Since(start))
			}
			if err := c.SetReadDeadline(time.Now().Add(-1)); err != nil {
				t.Error(err)
			}
			synctest.Wait()
			if _, err := r.Body.Read(make([]byte, 1)); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("reading past the deadline: %v", err)
			}
			c.SetReadDeadline(time.Time{})
			p := make([]byte, 4)
			if _, err := io.ReadFull(r.Body, p); err != nil || string(p) != "body" {
				t.Errorf("reading without a deadline: %q, %v", p, err)
			}

			start = time.Now()
			c.SetWriteDeadline(start.Add(2 * time.Second))
			_, err := io.Copy(w, strings.NewReader(strings.Repeat("x", 1<<20)))
			if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 2*time.Second {
				t.Errorf("writing: %v after %v", err, time.Since(start))
			}
		})
		p.writeRequest(1, false)
		time.Sleep(10 * time.Second)
		p.writeData(1, "body", false)
		<-done
	})
}

// A response that could not be written whole must not look whole.
func TestSeamResetsAResponseThatIsCutShort(t *testing.T) {
	for _, tt := range []struct {
		name  string
		serve func(w http.ResponseWriter)
	}{
		{"by its write deadline", func(w http.ResponseWriter) {
			http.NewResponseController(w).SetWriteDeadline(time.Now().Add(time.Second))
			io.Copy(w, strings.NewReader(strings.Repeat("x", 1<<20)))
		}},
		{"by its handler", func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, "short")
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p := servedPeer(t, func(w http.ResponseWriter, r *http.Request) { tt.serve(w) })
				p.writeRequest(1, true)
				p.skipFrames()
				time.Sleep(2 * time.Second)
				p.writeWindowUpdate(0, 1<<20)
				p.writeWindowUpdate(1, 1<<20)
				p.ended()
				if p.conn.OpenStreams() != 0 {
					t.Error("the stream is still open")
				}
				for _, f := range p.skipFrames() {
					if d, ok := f.(debugData); ok && d.end {
						t.Error("the response looks complete")
					}
				}
			})
		})
	}
}
