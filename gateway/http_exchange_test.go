package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// trialSeen is one request that a backend of tries has got.
type trialSeen struct {
	endpoint int
	body     string
}

// trials is a gateway before endpoints that answer the n-th request of all, from 0, alike.
type trials struct {
	*node
	mu   sync.Mutex
	seen []trialSeen
}

// startTrials has two endpoints, an HTTPRoute with rule, and a policy with spec.
func startTrials(t *testing.T, rule, spec string, answer func(n int, w http.ResponseWriter, r *http.Request)) *trials {
	t.Helper()
	s := new(trials)
	addresses := make([]string, 2)
	for i := range addresses {
		addresses[i] = httpBackend(t, func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			s.mu.Lock()
			n := len(s.seen)
			s.seen = append(s.seen, trialSeen{i, string(body)})
			s.mu.Unlock()
			answer(n, w, r)
		})
	}
	resources := []string{http1At("a", addresses...), everythingWith("a", rule)}
	if spec != "" {
		resources = append(resources, policyOn("HTTPRoute", "all", spec))
	}
	s.node = startGateway(t, Config{}, resources...)
	return s
}

func (s *trials) all() []trialSeen {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]trialSeen(nil), s.seen...)
}

// statuses answers with one after the other, and then with the last.
func statuses(list ...int) func(int, http.ResponseWriter, *http.Request) {
	return func(n int, w http.ResponseWriter, _ *http.Request) {
		status := list[min(n, len(list)-1)]
		w.WriteHeader(status)
		fmt.Fprintf(w, "answer %d: %d", n, status)
	}
}

const retryTwice = "retry: {attempts: 2, codes: [UNAVAILABLE], backoff: {base: 1ms, max: 2ms}}"

func TestExchangeSendsAgain(t *testing.T) {
	t.Parallel()
	large := strings.Repeat("x", 80<<10)
	tests := []struct {
		name, method, body string
		spec               string
		answer             func(int, http.ResponseWriter, *http.Request)
		status, tries      int
	}{
		{"503, and then well", "GET", "", retryTwice, statuses(503, 200), 200, 2},
		{"502, 504, and then well", "GET", "", retryTwice, statuses(502, 504, 200), 200, 3},
		{"never well", "GET", "", retryTwice, statuses(503), 503, 3},
		{"a body that is kept", "PUT", "all of it", retryTwice, statuses(503, 200), 200, 2},
		{"DELETE", "DELETE", "", retryTwice, statuses(503, 200), 200, 2},
		{"HEAD", "HEAD", "", retryTwice, statuses(503, 200), 200, 2},
		{"a body that is too large to be kept", "PUT", large, retryTwice, statuses(503, 200), 503, 1},
		{"what may not be repeated", "POST", "order", retryTwice, statuses(503, 200), 503, 1},
		{"neither may PATCH", "PATCH", "order", retryTwice, statuses(503, 200), 503, 1},
		{"an error of the program's", "GET", "", retryTwice, statuses(500, 200), 500, 1},
		{"an error of the request's", "GET", "", retryTwice, statuses(404, 200), 404, 1},
		{"a code that was asked for", "GET", "", strings.Replace(retryTwice, "UNAVAILABLE", "RESOURCE_EXHAUSTED", 1), statuses(429, 200), 200, 2},
		{"a code that was not", "GET", "", strings.Replace(retryTwice, "UNAVAILABLE", "RESOURCE_EXHAUSTED", 1), statuses(503, 200), 503, 1},
		{"nobody asked for it", "GET", "", "", statuses(503, 200), 503, 1},
		{"not before a time", "GET", "", retryTwice, func(n int, w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", "30")
			statuses(503, 200)(n, w, r)
		}, 503, 1},
		{"no answer at all", "GET", "", retryTwice, func(n int, w http.ResponseWriter, r *http.Request) {
			if n == 0 {
				panic(http.ErrAbortHandler)
			}
		}, 200, 2},
		{"no answer to what may not be repeated", "POST", "order", retryTwice, func(n int, w http.ResponseWriter, r *http.Request) {
			if n == 0 {
				panic(http.ErrAbortHandler)
			}
		}, 502, 1},
		{"no answer after an answer", "GET", "", retryTwice, func(n int, w http.ResponseWriter, r *http.Request) {
			if n > 0 {
				panic(http.ErrAbortHandler)
			}
			statuses(503)(n, w, r)
		}, 503, 3},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := startTrials(t, "", test.spec, test.answer)
			var body io.Reader
			if test.body != "" {
				body = strings.NewReader(test.body)
			}
			client := plainClient(t, 1)
			res, text := askPlain(t, client, test.method, "http://"+s.address()+"/things", body)
			seen := s.all()
			if res.StatusCode != test.status || len(seen) != test.tries {
				t.Fatalf("got %d %q after %d tries, want %d after %d", res.StatusCode, text, len(seen), test.status, test.tries)
			}
			for i, trial := range seen {
				if trial.body != test.body {
					t.Errorf("try %d got a body of %d bytes, want %d", i, len(trial.body), len(test.body))
				}
				if i > 0 && i < 2 && trial.endpoint == seen[i-1].endpoint {
					t.Errorf("try %d went to the same endpoint while another was there", i)
				}
			}
			await(t, "the request to be over", func() bool { return s.metric(t, "sluice_rpc_open") == 0 && s.metric(t, "sluice_rpc_kept_bytes") == 0 })
			if got := s.metric(t, "sluice_retry_total", "result", "allowed"); got != float64(test.tries-1) {
				t.Errorf("%v retries are counted, want %d", got, test.tries-1)
			}
			for _, e := range s.pool.Backend("default/a").Endpoints {
				if e.Active() != 0 {
					t.Errorf("%d requests are counted at an endpoint that has none", e.Active())
				}
			}
		})
	}
}

// TestExchangeKeepsToItsBudget: however many requests fail, and however often each is to
// be sent again, attempts are 1.2 times as many and ten a second.
func TestExchangeKeepsToItsBudget(t *testing.T) {
	t.Parallel()
	s := startTrials(t, "", "retry: {attempts: 5, codes: [UNAVAILABLE], backoff: {base: 1ms, max: 1ms}}", statuses(503))
	client := plainClient(t, 1)
	const calls = 200
	began := time.Now()
	for range calls {
		askPlain(t, client, "GET", "http://"+s.address()+"/", nil)
	}
	most := 1.2*calls + 10*(1+time.Since(began).Seconds())
	if attempts := len(s.all()); float64(attempts) > most || attempts < calls+10 {
		t.Errorf("%d attempts for %d requests, want %d to %.0f", attempts, calls, calls+10, most)
	}
	if got := s.metric(t, "sluice_retry_total", "result", "budget"); got < calls/2 {
		t.Errorf("%v were over the budget", got)
	}
}

// TestExchangeEndsInTime: what an HTTPRoute says of time holds, and is said in the
// caller's own protocol.
func TestExchangeEndsInTime(t *testing.T) {
	t.Parallel()
	hang := func(_ int, _ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	tests := []struct {
		name, rule, spec string
		answer           func(int, http.ResponseWriter, *http.Request)
		header           []string
		status, tries    int
		text, outcome    string
	}{
		{
			name: "the whole request", rule: "timeouts: {request: 50ms}", answer: hang,
			status: 504, tries: 1, outcome: "deadline", text: `"message":"sluice: the deadline has passed (50ms, as the route says)"`,
		},
		{
			name: "one attempt", rule: "timeouts: {backendRequest: 50ms}", answer: hang,
			status: 504, tries: 1, outcome: "backend_timeout", text: `"message":"sluice: the backend did not begin its answer in time (50ms)"`,
		},
		{
			name: "an attempt, and then another", rule: "timeouts: {request: 10s, backendRequest: 200ms}", spec: retryTwice,
			answer: func(n int, w http.ResponseWriter, r *http.Request) {
				if n == 0 {
					<-r.Context().Done()
				}
			},
			status: 200, tries: 2, outcome: "served",
		},
		{
			name: "a try of a policy's", spec: strings.Replace(retryTwice, "}}", "}, perTryTimeout: 200ms}", 1),
			answer: func(n int, w http.ResponseWriter, r *http.Request) {
				if n == 0 {
					<-r.Context().Done()
				}
			},
			status: 200, tries: 2, outcome: "served",
		},
		{
			name: "all attempts together", rule: "timeouts: {request: 120ms, backendRequest: 80ms}", spec: retryTwice, answer: hang,
			status: 504, tries: 2, outcome: "deadline", text: "the deadline has passed (120ms, as the route says)",
		},
		{
			name: "by a policy", spec: "timeouts: {request: 50ms}", answer: hang,
			status: 504, tries: 1, outcome: "deadline", text: "the deadline has passed (50ms, as the route says)",
		},
		{
			name: "a stream goes on", spec: "timeouts: {request: 100ms}",
			answer: func(_ int, w http.ResponseWriter, r *http.Request) {
				w.(http.Flusher).Flush()
				select {
				case <-r.Context().Done():
				case <-time.After(250 * time.Millisecond):
					io.WriteString(w, "the end")
				}
			},
			status: 200, tries: 1, outcome: "served", text: "the end",
		},
		{
			name: "no bound", rule: "timeouts: {request: 0s, backendRequest: 0s}", spec: "timeouts: {request: 1ms}",
			answer: func(_ int, _ http.ResponseWriter, r *http.Request) {
				select {
				case <-r.Context().Done():
				case <-time.After(50 * time.Millisecond):
				}
			},
			status: 200, tries: 1, outcome: "served",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := startTrials(t, test.rule, test.spec, test.answer)
			began := time.Now()
			res, text := askPlain(t, plainClient(t, 1), "GET", "http://"+s.address()+"/", nil, test.header...)
			if res.StatusCode != test.status || !strings.Contains(text, test.text) {
				t.Errorf("got %d %q, want %d %q", res.StatusCode, text, test.status, test.text)
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("it took %v", took)
			}
			if tries := len(s.all()); tries != test.tries {
				t.Errorf("%d tries, want %d", tries, test.tries)
			}
			await(t, "the request to be over", func() bool { return s.metric(t, "sluice_rpc_outcome_total", "outcome", test.outcome) == 1 })
		})
	}
}

// A response that has begun and is late looks broken, not complete.
func TestExchangeBreaksOffWhatIsLate(t *testing.T) {
	t.Parallel()
	for _, rule := range []string{"timeouts: {request: 300ms}", "timeouts: {backendRequest: 300ms}"} {
		s := startTrials(t, rule, "", func(_ int, w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "the beginning")
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		})
		bothVersions(t, func(t *testing.T, client *http.Client) {
			res, err := client.Get("http://" + s.address() + "/")
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if text, err := io.ReadAll(res.Body); err == nil || string(text) != "the beginning" {
				t.Errorf("%s: got %q, %v", rule, text, err)
			}
		})
	}
}

// A WebSocket is bounded until it is one, and not as long as it lasts.
func TestExchangeLeavesWebSocketsOpen(t *testing.T) {
	t.Parallel()
	s := socketBackend(t)
	g := startGateway(t, Config{}, http1At("a", s.addr), everythingWith("a", "timeouts: {request: 150ms, backendRequest: 150ms}"))
	c := dialRaw(t, g.address())
	c.write(socketRequest)
	c.readHead()
	c.expect(t, "first")
	<-time.After(400 * time.Millisecond) // the time of which it is not to take notice
	c.write("still there")
	c.expect(t, "still there")
}

// Pages whose backend speaks their protocol itself are told in it.
func TestExchangeTellsPagesInTime(t *testing.T) {
	t.Parallel()
	hanging := httpBackend(t, func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body) // else nobody would notice that the gateway has gone
		<-r.Context().Done()
	})
	g := startGateway(t, Config{}, backendWith("a", "protocol: http1\naccepts: [GRPCWeb, Connect, HTTP]", hanging), routeTo("a", "a"),
		policyFor("a", "timeouts: {request: 50ms}"))
	client := plainClient(t, 1)
	res, text := askPlain(t, client, "POST", "http://"+g.address()+"/shop.Cart/Get", bytes.NewReader(message(nil)), "Content-Type", "application/grpc-web+proto")
	if res.StatusCode != 200 || res.Header.Get("Grpc-Status") != "4" {
		t.Errorf("gRPC-Web got %d %v %q", res.StatusCode, res.Header, text)
	}
	res, text = askPlain(t, client, "POST", "http://"+g.address()+"/shop.Cart/Get", strings.NewReader("{}"), "Content-Type", "application/json", "Connect-Protocol-Version", "1")
	if res.StatusCode != 504 || !strings.Contains(text, `"code":"deadline_exceeded"`) {
		t.Errorf("Connect got %d %q", res.StatusCode, text)
	}
}

// TestExchangeBlamesEndpoints: one that answers 503, or not at all, is taken out of the
// choice; what tells of the request is nobody's fault.
func TestExchangeBlamesEndpoints(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		bad     http.HandlerFunc
		ejected bool
	}{
		{"503", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }, true},
		{"no answer", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, true},
		{"404", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) }, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var bad atomic.Int64
			good := httpBackend(t, func(w http.ResponseWriter, _ *http.Request) {})
			g := startGateway(t, Config{}, backendWith("a", "protocol: http1\nloadBalancing: {policy: RoundRobin}", httpBackend(t, func(w http.ResponseWriter, r *http.Request) {
				bad.Add(1)
				test.bad(w, r)
			}), good), everything("a"))
			client := plainClient(t, 1)
			for range 60 {
				askPlain(t, client, "GET", "http://"+g.address()+"/", nil)
			}
			if n := bad.Load(); test.ejected && n > 10 || !test.ejected && n < 25 {
				t.Errorf("of 60 requests %d went to the endpoint that fails", n)
			}
		})
	}
}

// blockingBody hands out what it is given.
type blockingBody struct {
	parts   chan string
	waiting chan struct{} // told of each read
}

func (b *blockingBody) Read(p []byte) (int, error) {
	select {
	case b.waiting <- struct{}{}:
	default:
	}
	part, ok := <-b.parts
	if !ok {
		return 0, io.EOF
	}
	return copy(p, part), nil
}

func (b *blockingBody) Close() error { return nil }

// A trial that is over may be in the middle of a read: what it gets is the next one's.
func TestRequestBodyLosesNothingBetweenTrials(t *testing.T) {
	in := &blockingBody{make(chan string), make(chan struct{}, 1)}
	var room atomic.Int64
	b := &requestBody{in: in, r: &http.Request{Trailer: http.Header{"X-Sum": {"1"}}}, room: &room}
	first := b.view(make(http.Header))
	stolen := make(chan string)
	go func() {
		p := make([]byte, 100)
		n, _ := first.Read(p)
		stolen <- string(p[:n])
	}()
	in.parts <- "one "
	<-stolen
	<-in.waiting
	go func() {
		p := make([]byte, 100)
		n, _ := first.Read(p) // and then the trial ends
		stolen <- string(p[:n])
	}()
	<-in.waiting
	trailer := make(http.Header)
	second := b.view(trailer)
	all := make(chan string)
	go func() {
		text, err := io.ReadAll(second)
		if err != nil {
			t.Error(err)
		}
		all <- string(text)
	}()
	in.parts <- "two "
	<-stolen
	in.parts <- "three"
	close(in.parts)
	if got := <-all; got != "one two three" {
		t.Errorf("the second trial got %q", got)
	}
	if trailer.Get("X-Sum") != "1" {
		t.Errorf("it got trailers %v", trailer)
	}
	if !b.whole() || room.Load() == 0 {
		t.Errorf("whole %v, %d bytes kept", b.whole(), room.Load())
	}
	b.end()
	if room.Load() != 0 {
		t.Errorf("%d bytes are kept of a body that is over", room.Load())
	}
	if _, err := b.view(trailer).Read(make([]byte, 1)); !errors.Is(err, errRequestEnded) {
		t.Errorf("read after the end: %v", err)
	}
}

// What a body may keep is bounded, for one and for all.
func TestRequestBodyIsKeptWithinBounds(t *testing.T) {
	tests := []struct {
		name  string
		taken int64
		size  int
		whole bool
	}{
		{"small", 0, maxKept, true},
		{"too large", 0, maxKept + 1, false},
		{"others have all", maxKeptTotal - 1000, 2000, false},
	}
	for _, test := range tests {
		var room atomic.Int64
		room.Store(test.taken)
		b := &requestBody{in: io.NopCloser(bytes.NewReader(make([]byte, test.size))), r: new(http.Request), room: &room}
		if n, err := io.Copy(io.Discard, struct{ io.Reader }{b.view(nil)}); err != nil || n != int64(test.size) {
			t.Errorf("%s: %d bytes, %v", test.name, n, err)
		}
		if b.whole() != test.whole {
			t.Errorf("%s: whole is %v", test.name, b.whole())
		}
		if _, err := io.ReadAll(b.view(make(http.Header))); test.whole != (err == nil) {
			t.Errorf("%s: the next trial got %v", test.name, err)
		}
		b.end()
		if room.Load() != test.taken {
			t.Errorf("%s: %d bytes are kept after the end", test.name, room.Load()-test.taken)
		}
	}
}

// TestTranscodingEndsInTime: an HTTPRoute's bound holds where its backend speaks gRPC.
func TestTranscodingEndsInTime(t *testing.T) {
	t.Parallel()
	b := startGrid(t, "a")
	g := startGateway(t, Config{}, gridSchema(t), backendAt("a", b.addr), httpRoute("all", "{matches: [{path: {value: /v1}}], timeouts: {request: 50ms}, backendRefs: ["+ref("a", 1)+"]}"))
	res, text := askPlain(t, plainClient(t, 1), "GET", "http://"+g.address()+"/v1/hang", nil)
	if res.StatusCode != 504 || !strings.Contains(text, "the deadline has passed") {
		t.Errorf("got %d %q", res.StatusCode, text)
	}
}
