package rest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/gateway/wire"
)

// items sends items of those names and ends with st.
func items(t *testing.T, st *wire.Status, names ...string) func(*connectCall) *wire.Status {
	return func(c *connectCall) *wire.Status {
		c.recv()
		c.header, c.trailer = http.Header{"X-Cart": {"7"}}, http.Header{"X-Cost": {"12"}}
		for _, name := range names {
			c.send(Message{Data: onWire(t, "Item", `{"name":"`+name+`"}`)})
		}
		return st
	}
}

func TestServerWritesStreamsInTheFormThatIsAskedFor(t *testing.T) {
	busy := &wire.Status{Code: wire.Unavailable, Message: "busy"}
	const fault = `{"code":14,"message":"busy","details":[]}`
	for _, tt := range []struct {
		name, accept string
		st           *wire.Status
		names        []string
		contentType  string
		body         string
	}{
		{"lines", "", nil, []string{"a", "b"}, "application/x-ndjson", "A\nB\n"},
		{"lines, nothing to tell", "*/*", nil, nil, "application/x-ndjson", ""},
		{"lines, an error at the end", "application/ndjson", busy, []string{"a"}, "application/x-ndjson", "A\n" + `{"error":` + fault + "}\n"},
		{"events", "text/event-stream", nil, []string{"a", "b"}, "text/event-stream", "data: A\n\ndata: B\n\nevent: end\ndata: {}\n\n"},
		{"events, nothing to tell", "text/event-stream", nil, nil, "text/event-stream", "event: end\ndata: {}\n\n"},
		{"events, an error at the end", "text/event-stream, */*", busy, []string{"a"}, "text/event-stream", "data: A\n\nevent: error\ndata: " + fault + "\n\n"},
		{"an array", "application/json", nil, []string{"a", "b"}, "application/json", "[A,\nB]\n"},
		{"an array of none", "application/json;q=0.9, text/html", nil, nil, "application/json", "[]\n"},
		{"an array, an error at the end", "application/json", busy, []string{"a"}, "application/json", "[A,\n" + `{"error":` + fault + "}]\n"},
		{"what is liked best", "application/json;q=0.5, text/event-stream;q=0.7, application/x-ndjson;q=0.1", nil, []string{"a"}, "text/event-stream", "data: A\n\nevent: end\ndata: {}\n\n"},
		{"the first of what is liked as well", "application/json, text/event-stream", nil, nil, "application/json", "[]\n"},
		{"what is not liked", "application/json;q=0", nil, nil, "application/x-ndjson", ""},
		{"an error and nothing else", "", busy, nil, "application/json", fault + "\n"},
		{"an error and nothing else, as event", "text/event-stream", busy, nil, "application/json", fault + "\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			overBoth(t, func(t *testing.T, client *http.Client) {
				p := newShop(t, items(t, tt.st, tt.names...))
				url := p.serve(t).URL + "/v1/carts/7:watch"
				resp, body := ask(t, client, "GET", url, "", "Accept: "+tt.accept)
				want := tt.body
				for _, name := range tt.names {
					want = strings.Replace(want, strings.ToUpper(name), itemJSON(t, name), 1)
				}
				if body != want {
					t.Errorf("body is\n%s\nwant\n%s", body, want)
				}
				status := 200
				if tt.st != nil && len(tt.names) == 0 {
					status = 503
				}
				if got := resp.Header.Get("Content-Type"); resp.StatusCode != status || got != tt.contentType {
					t.Errorf("answer is %d of type %s, want %d of type %s", resp.StatusCode, got, status, tt.contentType)
				}
				if resp.Header.Get("X-Cart") != "7" || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
					t.Errorf("fields are %v", resp.Header)
				}
				if status == 200 && resp.Header.Get("Vary") != "Accept, Accept-Encoding" {
					t.Errorf("Vary is %q", resp.Header.Get("Vary"))
				}
			})
		})
	}
}

// itemJSON is how the codec writes an item of that name.
func itemJSON(t *testing.T, name string) string {
	t.Helper()
	s, err := cartSchema()
	if err != nil {
		t.Fatal(err)
	}
	e := Implicit(s.Method("/shop.v1.Cart/Get"))
	b, _, err := e.Encode(nil, onWire(t, "Item", `{"name":"`+name+`"}`), EncodeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestServerTellsTheEndOfAStreamInTrailers(t *testing.T) {
	overBoth(t, func(t *testing.T, client *http.Client) {
		for _, tt := range []struct {
			st           *wire.Status
			code, reason string
		}{
			{nil, "0", ""},
			{&wire.Status{Code: wire.DataLoss, Message: "gone ü"}, "15", "gone %C3%BC"},
			{&wire.Status{Code: 99}, "2", ""},
		} {
			p := newShop(t, items(t, tt.st, "a"))
			resp, _ := ask(t, client, "GET", p.serve(t).URL+"/v1/carts/7:watch", "", "TE: trailers")
			if h := resp.Trailer; h.Get("Grpc-Status") != tt.code || h.Get("Grpc-Message") != tt.reason || h.Get("X-Cost") != "12" {
				t.Errorf("%v: trailers are %v", tt.st, h)
			}
		}
	})
}

// Every format, compressed or not: the client holds the first message before the
// backend sends the second.
func TestServerSendsEachMessageOfAStreamAtOnce(t *testing.T) {
	for _, accept := range []string{"application/x-ndjson", "text/event-stream", "application/json"} {
		for _, encoding := range []string{"identity", "gzip"} {
			t.Run(accept+" "+encoding, func(t *testing.T) {
				overBoth(t, func(t *testing.T, client *http.Client) {
					seen := make(chan struct{})
					p := newShop(t, func(c *connectCall) *wire.Status {
						c.recv()
						for _, name := range []string{"first", "second"} {
							c.send(Message{Data: onWire(t, "Item", `{"name":"`+name+`"}`)})
							<-seen
						}
						return nil
					})
					resp := begin(t, client, "GET", p.serve(t).URL+"/v1/carts/7:watch", nil, "Accept: "+accept, "Accept-Encoding: "+encoding)
					defer resp.Body.Close()
					body := io.Reader(resp.Body)
					if encoding == "gzip" {
						body = &unzipping{from: resp.Body}
					}
					for _, name := range []string{"first", "second"} {
						readUntil(t, body, name+`"}`)
						seen <- struct{}{}
					}
					if _, err := io.Copy(io.Discard, body); err != nil {
						t.Errorf("after the last message: %v", err)
					}
				})
			})
		}
	}
}

// readUntil reads to the first text, and no further than that needs.
func readUntil(t *testing.T, body io.Reader, text string) {
	t.Helper()
	var got []byte
	b := make([]byte, 512)
	for !bytes.Contains(got, []byte(strings.TrimSuffix(text, "}"))) {
		n, err := body.Read(b)
		got = append(got, b[:n]...)
		if err != nil {
			t.Fatalf("%v after %q, want %q", err, got, text)
		}
	}
}

func TestServerGivesStreamsOfHTTPBodyAsTheyAre(t *testing.T) {
	overBoth(t, func(t *testing.T, client *http.Client) {
		backend := func(st *wire.Status) func(c *connectCall) *wire.Status {
			return func(c *connectCall) *wire.Status {
				c.recv()
				c.header = http.Header{"Content-Disposition": {"attachment"}}
				c.send(Message{Data: imageOf(t, "image/png", "\x89P")})
				c.send(Message{Data: imageOf(t, "text/html", "NG")})
				return st
			}
		}
		resp, body := ask(t, client, "GET", newShop(t, backend(nil)).serve(t).URL+"/v1/receipts/7:scans", "", "Accept: text/event-stream")
		if body != "\x89PNG" || resp.Header.Get("Content-Type") != "image/png" || resp.Header.Get("Content-Disposition") != "attachment" {
			t.Errorf("answer is %v %q", resp.Header, body)
		}
		// There is no place for an error: the answer must not look complete.
		resp = begin(t, client, "GET", newShop(t, backend(&wire.Status{Code: wire.DataLoss})).serve(t).URL+"/v1/receipts/7:scans", nil)
		defer resp.Body.Close()
		if b, err := io.ReadAll(resp.Body); err == nil {
			t.Errorf("a stream that broke off looks complete: %q", b)
		}
	})
}

func TestServerSaysThatStreamsOfTextVaryByEncoding(t *testing.T) {
	overBoth(t, func(t *testing.T, client *http.Client) {
		for contentType, want := range map[string]string{"text/csv": "Accept-Encoding", "image/png": ""} {
			url := newShop(t, func(c *connectCall) *wire.Status {
				c.recv()
				c.send(Message{Data: imageOf(t, contentType, "a,b")})
				return nil
			}).serve(t).URL + "/v1/receipts/7:scans"
			for _, accept := range []string{"identity", "gzip"} {
				resp, body := ask(t, client, "GET", url, "", "Accept-Encoding: "+accept)
				if got := resp.Header.Get("Vary"); got != want || body == "" {
					t.Errorf("%s for %s: Vary is %q, want %q", contentType, accept, got, want)
				}
			}
		}
	})
}

func TestServerEndsTheRPCOfACallerWhoHasGone(t *testing.T) {
	overBoth(t, func(t *testing.T, client *http.Client) {
		gone := make(chan struct{})
		p := newShop(t, func(c *connectCall) *wire.Status {
			c.recv()
			c.send(Message{Data: onWire(t, "Item", `{"name":"a"}`)})
			<-c.ctx.Done()
			close(gone)
			return nil
		})
		resp := begin(t, client, "GET", p.serve(t).URL+"/v1/carts/7:watch", nil)
		readUntil(t, resp.Body, `"a"`)
		resp.Body.Close()
		<-gone
	})
}

func TestServerEndsAStreamThatItCannotTranslate(t *testing.T) {
	p := newShop(t, func(c *connectCall) *wire.Status {
		c.recv()
		c.send(Message{Data: onWire(t, "Item", `{"name":"a"}`)})
		c.send(Message{Data: []byte{0x0a, 0x7f}})
		<-c.ctx.Done()
		return nil
	})
	_, body := ask(t, clientOf(t, 1), "GET", p.serve(t).URL+"/v1/carts/7:watch", "")
	if lines := strings.Split(body, "\n"); len(lines) != 3 || !strings.HasPrefix(lines[1], `{"error":{"code":13,"message":"sluice: `) {
		t.Errorf("body is %q, want a message and an error", body)
	}
	if p.aborted(t) == nil {
		t.Error("the RPC was not ended")
	}
}

// pausing is a caller who takes a write only when it is told to.
type pausing struct {
	*httptest.ResponseRecorder
	takes chan struct{} // nil when it takes everything at once

	mu    sync.Mutex // guards the recorder and the field below
	begun bool
}

func (p *pausing) Write(b []byte) (int, error) {
	if p.takes != nil {
		<-p.takes
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ResponseRecorder.Write(b)
}

func (p *pausing) FlushError() error { return nil }

func (p *pausing) WriteHeader(status int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.begun = true
	p.ResponseRecorder.WriteHeader(status)
}

func (p *pausing) isBegun() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.begun
}

func (p *pausing) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.Body.String()
}

func TestServerTakesNoMoreThanTheCallerDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sent := make(chan struct{}, 100)
		p := newShop(t, func(c *connectCall) *wire.Status {
			c.recv()
			for range 10 {
				c.send(Message{Data: onWire(t, "Item", `{"name":"a"}`)})
				sent <- struct{}{}
			}
			return nil
		})
		w := &pausing{ResponseRecorder: httptest.NewRecorder(), takes: make(chan struct{})}
		done := make(chan struct{})
		go func() {
			defer close(done)
			NewServer(Options{}).ServeREST(w, httptest.NewRequest("GET", "/v1/carts/7:watch", nil), p)
		}()
		for taken := range 10 {
			synctest.Wait()
			if ahead := len(sent) - taken; ahead > 1 {
				t.Errorf("the backend is %d messages ahead of a caller who has taken %d", ahead, taken)
			}
			w.takes <- struct{}{}
		}
		<-done
	})
}

func TestServerKeepsAnIdleEventStreamInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		next := make(chan struct{})
		p := newShop(t, func(c *connectCall) *wire.Status {
			c.recv()
			<-next
			c.send(Message{Data: onWire(t, "Item", `{"name":"a"}`)})
			<-next
			return nil
		})
		r := httptest.NewRequest("GET", "/v1/carts/7:watch", nil)
		r.Header.Set("Accept", "text/event-stream")
		w := &pausing{ResponseRecorder: httptest.NewRecorder()}
		done := make(chan struct{})
		go func() {
			defer close(done)
			NewServer(Options{}).ServeREST(w, r, p)
		}()
		time.Sleep(keepAliveTime - time.Millisecond)
		if got := w.text(); got != "" {
			t.Errorf("after less than %v there is %q", keepAliveTime, got)
		}
		time.Sleep(2 * time.Millisecond)
		if got := w.text(); got != ":\n\n" {
			t.Errorf("after %v there is %q, want a comment", keepAliveTime, got)
		}
		time.Sleep(10 * time.Second)
		next <- struct{}{}
		synctest.Wait()
		message := ":\n\ndata: " + itemJSON(t, "a") + "\n\n"
		time.Sleep(keepAliveTime - time.Second) // since the message, not since the comment
		if got := w.text(); got != message {
			t.Errorf("with a message there is %q, want %q", got, message)
		}
		time.Sleep(2 * time.Second)
		if got := w.text(); got != message+":\n\n" {
			t.Errorf("when it is idle again there is %q, want a comment more", got)
		}
		next <- struct{}{}
		<-done
		time.Sleep(time.Minute)
		if got := w.text(); got != message+":\n\nevent: end\ndata: {}\n\n" || w.Header().Get("Cache-Control") != "no-cache" {
			t.Errorf("in the end there is %q with the fields %v", got, w.Header())
		}
	})
}

// What the backend has said in its header is not held back until a message comes; an
// error that follows at once still has a status of its own.
func TestServerOpensAStreamWhenTheBackendDoes(t *testing.T) {
	for _, tt := range []struct {
		name   string
		after  time.Duration // of the error behind the header
		status int
	}{
		{"an error at once", settleTime / 2, 404},
		{"an error later", 2 * settleTime, 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newShop(t, func(c *connectCall) *wire.Status {
					c.recv()
					c.header = http.Header{"X-Cart": {"7"}}
					c.respond()
					time.Sleep(tt.after)
					return &wire.Status{Code: wire.NotFound, Message: "no cart"}
				})
				w := &pausing{ResponseRecorder: httptest.NewRecorder()}
				NewServer(Options{}).ServeREST(w, httptest.NewRequest("GET", "/v1/carts/7:watch", nil), p)
				if w.Code != tt.status || w.Header().Get("X-Cart") != "7" || !strings.Contains(w.text(), `"no cart"`) {
					t.Errorf("answer is %d %v %q, want %d", w.Code, w.Header(), w.text(), tt.status)
				}
			})
		})
	}
}

// stuck is a caller on HTTP/1 who takes nothing until its deadline.
type stuck struct {
	*httptest.ResponseRecorder
	deadline time.Time
}

func (s *stuck) SetWriteDeadline(at time.Time) error { s.deadline = at; return nil }

func (s *stuck) Write([]byte) (int, error) {
	time.Sleep(time.Until(s.deadline))
	return 0, errors.New("i/o timeout")
}

// timed is a caller on HTTP/1 whose deadline is kept.
type timed struct {
	*httptest.ResponseRecorder
	deadline time.Time
	late     int // writes behind the deadline
}

func (w *timed) SetWriteDeadline(at time.Time) error { w.deadline = at; return nil }

func (w *timed) Write(b []byte) (int, error) {
	if time.Now().After(w.deadline) {
		w.late++
	}
	return w.ResponseRecorder.Write(b)
}

func TestServerHasPatienceWithAStreamThatRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newShop(t, func(c *connectCall) *wire.Status {
			c.recv()
			for range 3 {
				c.send(Message{Data: onWire(t, "Item", `{"name":"a"}`)})
				time.Sleep(2 * stalledAfter)
			}
			return &wire.Status{Code: wire.Aborted}
		})
		w := &timed{ResponseRecorder: httptest.NewRecorder()}
		NewServer(Options{}).ServeREST(w, httptest.NewRequest("GET", "/v1/carts/7:watch", nil), p)
		if w.late > 0 || time.Now().After(w.deadline) {
			t.Errorf("%d writes came behind the deadline, which is %v from now in the end", w.late, time.Until(w.deadline))
		}
	})
}

func TestServerDoesNotWaitForACallerForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newShop(t, func(c *connectCall) *wire.Status {
			c.recv()
			c.send(Message{Data: onWire(t, "Item", `{"name":"a"}`)})
			<-c.ctx.Done()
			return nil
		})
		start := time.Now()
		NewServer(Options{}).ServeREST(&stuck{ResponseRecorder: httptest.NewRecorder()}, httptest.NewRequest("GET", "/v1/carts/7:watch", nil), p)
		if took := time.Since(start); took != stalledAfter {
			t.Errorf("a caller who takes nothing was waited for %v, want %v", took, stalledAfter)
		}
		if st := p.aborted(t); st == nil || st.Code != wire.Canceled {
			t.Errorf("the RPC ended for %v", st)
		}
	})
}

func TestServerStreamsInConstantMemory(t *testing.T) {
	const size, count = 1 << 20, 200
	photo := onWire(t, "Item", `{"photo":"`+strings.Repeat("AAAA", size/4)+`"}`)
	var most uint64
	base := heap()
	p := newShop(t, func(c *connectCall) *wire.Status {
		c.recv()
		for i := range count {
			c.send(Message{Data: photo})
			if i%50 == 49 {
				most = max(most, heap())
			}
		}
		return nil
	})
	resp := begin(t, clientOf(t, 1), "GET", p.serve(t).URL+"/v1/carts/7:watch", nil)
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if err != nil || n < size*count {
		t.Fatalf("read %d bytes: %v", n, err)
	}
	if most > base+16<<20 {
		t.Errorf("the heap has grown by %d bytes for a stream of %d", most-base, n)
	}
}

// heap is what is in use after a collection, bytes.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestServerTalksBothWaysAtOnce(t *testing.T) {
	overBoth(t, func(t *testing.T, client *http.Client) {
		p := newShop(t, func(c *connectCall) *wire.Status {
			for {
				m, ok := c.recv()
				if !ok {
					return nil
				}
				c.send(m)
			}
		})
		out, in := io.Pipe()
		answers := make(chan *http.Response, 1)
		url := p.serve(t).URL + "/v1/items:talk"
		go func() {
			defer close(answers)
			req, _ := http.NewRequest("POST", url, out)
			req.Header.Set("Content-Type", "application/x-ndjson")
			resp, err := client.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			answers <- resp
		}()
		fmt.Fprintln(in, `{"name":"a"}`)
		resp, ok := <-answers
		if !ok {
			t.FailNow()
		}
		defer resp.Body.Close()
		lines := bufio.NewReader(resp.Body)
		for _, name := range []string{"a", "b", "c"} {
			if name != "a" {
				fmt.Fprintf(in, `{"name":"%s"}`, name)
			}
			line, err := lines.ReadString('\n')
			if line != itemJSON(t, name)+"\n" {
				t.Fatalf("after %s came %q, %v", name, line, err)
			}
		}
		in.Close()
		if rest, err := io.ReadAll(lines); err != nil || len(rest) > 0 {
			t.Errorf("in the end there is %q, %v", rest, err)
		}
	})
}

// A caller may want to see the answer begin before it sends.
func TestServerOpensATalkBeforeItsFirstMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newShop(t, func(c *connectCall) *wire.Status {
			for {
				if _, ok := c.recv(); !ok {
					return nil
				}
			}
		})
		out, in := io.Pipe()
		w := &pausing{ResponseRecorder: httptest.NewRecorder()}
		r := httptest.NewRequest("POST", "/v1/items:talk", out)
		r.Header.Set("Content-Type", "application/json")
		done := make(chan struct{})
		go func() {
			defer close(done)
			NewServer(Options{}).ServeREST(w, r, p)
		}()
		time.Sleep(duplexPatience - time.Millisecond)
		if w.isBegun() {
			t.Errorf("the answer began before %v", duplexPatience)
		}
		time.Sleep(2 * time.Millisecond)
		if !w.isBegun() {
			t.Errorf("the answer did not begin in %v", duplexPatience)
		}
		in.Close()
		<-done
		if w.Code != 200 || w.text() != "" {
			t.Errorf("answer is %d %q", w.Code, w.text())
		}
	})
}
