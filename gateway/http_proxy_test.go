package gateway

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/textproto"
	"net/url"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"sluice/gateway/h2"
	"sluice/gateway/upstream"
)

// everything is an HTTPRoute of all requests to one backend.
func everything(backend string) string { return everythingWith(backend, "") }

func everythingWith(backend, rule string) string {
	if rule != "" {
		rule += ", "
	}
	return httpRoute("all", "{name: all, "+rule+"backendRefs: ["+ref(backend, 1)+"]}")
}

// proxied is a gateway before a backend.
func proxied(t testing.TB, f http.HandlerFunc) *node {
	t.Helper()
	return startGateway(t, Config{}, http1At("a", httpBackend(t, f)), everything("a"))
}

func TestProxyPassesBodiesTrailersAndFieldsOn(t *testing.T) {
	t.Parallel()
	g := proxied(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("Trailer", "X-Told")
		w.Header().Add("Set-Cookie", "a=1")
		w.Header().Add("Set-Cookie", "b=2")
		w.Header().Set("Connection", "X-Secret")
		w.Header().Set("X-Secret", "hop")
		w.Header()["Content-Type"] = nil
		w.WriteHeader(201)
		fmt.Fprintf(w, "%s|%s|%d|%s|%s", body, r.Trailer.Get("X-Sum"), r.ContentLength, strings.Join(r.Header["X-Many"], "+"), r.Header.Get("X-Hop"))
		w.Header().Set("X-Told", "told")
		w.Header().Set(http.TrailerPrefix+"X-Untold", "untold")
	})
	bothVersions(t, func(t *testing.T, client *http.Client) {
		r, _ := http.NewRequest("PATCH", "http://"+g.address()+"/", io.MultiReader(strings.NewReader("some"), strings.NewReader("thing")))
		r.Trailer = http.Header{"X-Sum": {"9"}}
		r.Header = http.Header{"X-Many": {"1", "2"}}
		if r.ProtoMajor == 1 && client.Transport.(*http.Transport).Protocols.HTTP1() {
			r.Header.Set("Connection", "X-Hop")
			r.Header.Set("X-Hop", "hop")
		}
		res, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != 201 || string(body) != "something|9|-1|1+2|" {
			t.Errorf("got %d %q", res.StatusCode, body)
		}
		if res.Trailer.Get("X-Told") != "told" || res.Trailer.Get("X-Untold") != "untold" {
			t.Errorf("trailers %v", res.Trailer)
		}
		if !slices.Equal(res.Header["Set-Cookie"], []string{"a=1", "b=2"}) || res.Header["X-Secret"] != nil || res.Header["Content-Type"] != nil {
			t.Errorf("header %v", res.Header)
		}
	})
}

// TestProxyKeepsTheFormOfTheResponse: statuses without a body, HEAD, lengths.
func TestProxyKeepsTheFormOfTheResponse(t *testing.T) {
	t.Parallel()
	g := proxied(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/204", "/304":
			w.Header().Set("Etag", `"x"`)
			w.WriteHeader(map[string]int{"/204": 204, "/304": 304}[r.URL.Path])
		case "/length":
			w.Header().Set("Content-Length", "5")
			io.WriteString(w, "hello")
		case "/empty":
		case "/gzip":
			w.Header().Set("Content-Encoding", "gzip")
			io.WriteString(w, "not really")
		}
	})
	bothVersions(t, func(t *testing.T, client *http.Client) {
		for _, tt := range []struct {
			request string
			status  int
			length  int64
			body    string
		}{
			{"GET /204", 204, 0, ""},
			{"GET /304", 304, -2, ""},
			{"GET /length", 200, 5, "hello"},
			{"HEAD /length", 200, 5, ""},
			{"HEAD /empty", 200, -2, ""},
			{"GET /empty", 200, 0, ""},
			{"GET /gzip", 200, 10, "not really"},
		} {
			method, path, _ := strings.Cut(tt.request, " ")
			res, body := askPlain(t, client, method, "http://"+g.address()+path, nil, "Accept-Encoding", "gzip")
			if res.StatusCode != tt.status || body != tt.body || tt.length != -2 && res.ContentLength != tt.length {
				t.Errorf("%s: got %d, %d bytes declared, %q", tt.request, res.StatusCode, res.ContentLength, body)
			}
		}
	})
}

// TestProxyStreamsBothWays: each message arrives before the next one is sent.
func TestProxyStreamsBothWays(t *testing.T) {
	t.Parallel()
	g := proxied(t, func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		control.EnableFullDuplex()
		control.Flush()
		lines := bufio.NewScanner(r.Body)
		for lines.Scan() {
			fmt.Fprintln(w, "echo "+lines.Text())
			control.Flush()
		}
	})
	bothVersions(t, func(t *testing.T, client *http.Client) {
		pr, pw := io.Pipe()
		defer pw.Close()
		r, _ := http.NewRequest("POST", "http://"+g.address()+"/", pr)
		res, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		answers := bufio.NewReader(res.Body)
		for i := range 20 {
			fmt.Fprintln(pw, i)
			if line, err := answers.ReadString('\n'); line != fmt.Sprintf("echo %d\n", i) {
				t.Fatalf("got %q, %v", line, err)
			}
		}
		pw.Close()
		if rest, err := io.ReadAll(answers); len(rest) > 0 || err != nil {
			t.Errorf("at the end %q, %v", rest, err)
		}
	})
}

// TestProxySaysWhereARequestComesFrom: and lets nobody else say so, by whatever name.
func TestProxySaysWhereARequestComesFrom(t *testing.T) {
	t.Parallel()
	seen := make(chan http.Header, 1)
	handler := func(w http.ResponseWriter, r *http.Request) {
		r.Header.Set("Host", r.Host)
		seen <- r.Header
	}
	lies := []string{
		"X-Forwarded-For", "6.6.6.6, 7.7.7.7", "X-Forwarded-Proto", "https", "X-Forwarded-Host", "evil", "Forwarded", "for=6.6.6.6",
		"X-Real-Ip", "6.6.6.6", "X_Forwarded_For", "6.6.6.6", "X-Forwarded-Prefix", "/evil", "X-Set", "client", "X_Set", "client", "X-Gone", "client",
	}
	rule := "filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-Set, value: rule}], add: [{name: X-Added, value: rule}], remove: [X-Gone]}}, " +
		"{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: X-Out, value: rule}], remove: [Date]}}]"
	trusting := Config{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
	for name, tt := range map[string]struct {
		cfg  Config
		want map[string]string
	}{
		"nobody is trusted": {Config{}, map[string]string{"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "shop", "Forwarded": "", "X-Real-Ip": "", "X-Forwarded-Prefix": ""}},
		"a proxy in front":  {trusting, map[string]string{"X-Forwarded-For": "7.7.7.7, 127.0.0.1", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil", "Forwarded": "for=6.6.6.6", "X-Forwarded-Prefix": "/evil"}},
	} {
		t.Run(name, func(t *testing.T) {
			g := startGateway(t, tt.cfg, http1At("a", httpBackend(t, handler)), everythingWith("a", rule))
			bothVersions(t, func(t *testing.T, client *http.Client) {
				res, _ := askPlain(t, client, "GET", "http://"+g.address()+"/", nil, append(lies, "Host", "shop")...)
				h := <-seen
				for name, want := range tt.want {
					if got := strings.Join(h[name], "|"); got != want {
						t.Errorf("%s: got %q, want %q", name, got, want)
					}
				}
				for name, want := range map[string]string{"Host": "shop", "X-Set": "rule", "X-Added": "rule", "X-Gone": "", "X_forwarded_for": "", "X_set": "", "X_Forwarded_For": "", "X_Set": ""} {
					if got := strings.Join(h[name], "|"); got != want {
						t.Errorf("%s: got %q, want %q", name, got, want)
					}
				}
				if res.Header.Get("X-Out") != "rule" {
					t.Errorf("response %v", res.Header)
				}
			})
		})
	}
}

// TestProxyLetsNoFieldBeNamedAway: what the connection field names is dropped before
// the gateway writes its own.
func TestProxyLetsNoFieldBeNamedAway(t *testing.T) {
	t.Parallel()
	seen := make(chan http.Header, 1)
	g := proxied(t, func(w http.ResponseWriter, r *http.Request) { seen <- r.Header })
	nc := dialRaw(t, g.address())
	nc.write("GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Forwarded-For, X-Mine, Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nX-Mine: 1\r\nKeep-Alive: 5\r\nProxy-Authorization: x\r\nTE: trailers, deflate\r\n\r\n")
	if head := nc.readHead(); !strings.HasPrefix(head, "HTTP/1.1 200") {
		t.Fatalf("got %q", head)
	}
	h := <-seen
	if h.Get("X-Forwarded-For") != "127.0.0.1" || h.Get("Te") != "trailers" {
		t.Errorf("got %v", h)
	}
	for _, name := range []string{"X-Mine", "Upgrade", "Connection", "Keep-Alive", "Proxy-Authorization", "Http2-Settings"} {
		if h[name] != nil {
			t.Errorf("%s: %q", name, h[name])
		}
	}
}

// TestProxyPassesHintsOn: informational responses come before the final one.
func TestProxyPassesHintsOn(t *testing.T) {
	t.Parallel()
	g := proxied(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(103)
		w.Header().Del("Link")
		io.WriteString(w, "done")
	})
	bothVersions(t, func(t *testing.T, client *http.Client) {
		var links []string
		ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			links = append(links, fmt.Sprint(code, " ", h.Get("Link")))
			return nil
		}})
		r, _ := http.NewRequestWithContext(ctx, "GET", "http://"+g.address()+"/", nil)
		res, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if string(body) != "done" || res.Header.Get("Link") != "" || !slices.Equal(links, []string{"103 </style.css>; rel=preload"}) {
			t.Errorf("got %q, %v, hints %q", body, res.Header, links)
		}
	})
}

// TestProxyAsksForTheBodyWhenTheBackendDoes: Expect: 100-continue goes through.
func TestProxyAsksForTheBodyWhenTheBackendDoes(t *testing.T) {
	t.Parallel()
	g := proxied(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/refused" {
			w.WriteHeader(417)
			return
		}
		io.Copy(w, r.Body)
	})
	nc := dialRaw(t, g.address())
	nc.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
	if head := nc.readHead(); head != "HTTP/1.1 100 Continue\r\n" {
		t.Fatalf("got %q", head)
	}
	nc.write("hello")
	if head := nc.readHead(); !strings.HasPrefix(head, "HTTP/1.1 200") {
		t.Errorf("got %q", head)
	}
	nc = dialRaw(t, g.address())
	nc.write("POST /refused HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
	if head := nc.readHead(); !strings.HasPrefix(head, "HTTP/1.1 417") {
		t.Errorf("refused: got %q", head)
	}
}

// TestProxyBreaksOffWhatBreaksOff: a response that the backend did not finish does not
// look complete, however its length was told.
func TestProxyBreaksOffWhatBreaksOff(t *testing.T) {
	t.Parallel()
	heads := map[string]string{
		"/length":  "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
		"/chunks":  "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
		"/chunk":   "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nhalf",
		"/trailer": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n4\r\nhalf\r\n0\r\nX-S",
		"/nothing": "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n",
	}
	s := rawBackend(t, func(c *rawConn) {
		_, rest, _ := strings.Cut(c.readHead(), " ")
		path, _, _ := strings.Cut(rest, " ")
		c.write(heads[path])
	})
	g := startGateway(t, Config{}, http1At("a", s.addr), everything("a"))
	bothVersions(t, func(t *testing.T, client *http.Client) {
		for path := range heads {
			res, err := client.Get("http://" + g.address() + path)
			if err != nil {
				continue // the response was broken off before its header had left
			}
			body, err := io.ReadAll(res.Body)
			res.Body.Close()
			if err == nil {
				t.Errorf("%s: a whole response of %q", path, body)
			}
		}
	})
	await(t, "the endings to be counted", func() bool {
		return g.metric(t, "sluice_rpc_outcome_total", "outcome", "backend_lost") == float64(2*len(heads))
	})
	if open := g.metric(t, "sluice_rpc_open"); open != 0 {
		t.Errorf("%v requests are open", open)
	}
}

// TestProxyEndsWithItsClient: the backend hears at once that nobody waits any more.
func TestProxyEndsWithItsClient(t *testing.T) {
	t.Parallel()
	began, gone := make(chan struct{}, 1), make(chan struct{}, 1)
	g := proxied(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/begun" {
			w.(http.Flusher).Flush()
		}
		began <- struct{}{}
		if r.URL.Path != "/half" {
			<-r.Context().Done()
		} else if _, err := io.ReadAll(r.Body); err == nil {
			t.Error("half a body passed for a whole one")
		}
		gone <- struct{}{}
	})
	n := 0.0
	bothVersions(t, func(t *testing.T, client *http.Client) {
		for _, path := range []string{"/waiting", "/begun"} {
			ctx, cancel := context.WithCancel(context.Background())
			r, _ := http.NewRequestWithContext(ctx, "GET", "http://"+g.address()+path, nil)
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				if res, err := client.Do(r); err == nil {
					io.Copy(io.Discard, res.Body)
					res.Body.Close()
				}
			}()
			<-began
			cancel()
			<-ended
			select {
			case <-gone:
			case <-time.After(patience):
				t.Fatalf("%s: the backend was not told", path)
			}
			n++
			await(t, "the end to be counted", func() bool {
				return g.metric(t, "sluice_rpc_outcome_total", "outcome", "cancelled") == n
			})
		}
	})
	// A client that promises more than it sends.
	nc := dialRaw(t, g.address())
	nc.write("POST /half HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\r\nhalf")
	<-began
	nc.Close()
	<-gone
	await(t, "nothing to be open", func() bool { return g.metric(t, "sluice_rpc_open") == 0 })
}

// TestProxyGoesToAnotherEndpoint: one that cannot be reached costs nobody anything, and
// comes back.
func TestProxyGoesToAnotherEndpoint(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := l.Addr().String()
	l.Close()
	var alive atomic.Int64
	g := startGateway(t, Config{}, http1At("a", dead, namedBackend(t, "alive", &alive)), everything("a"))
	client := plainClient(t, 1)
	for range 20 {
		if res, body := askPlain(t, client, "POST", "http://"+g.address()+"/", strings.NewReader("body")); res.StatusCode != 200 {
			t.Fatalf("got %d %s", res.StatusCode, body)
		}
	}
	if g.metric(t, "sluice_endpoint_usable", "endpoint", dead) != 0 || g.metric(t, "sluice_endpoint_dial_failures_total", "endpoint", dead) == 0 {
		t.Error("the endpoint that cannot be reached passes for usable")
	}
	if l, err = net.Listen("tcp", dead); err != nil {
		t.Fatal(err)
	}
	back := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "back") })}
	go back.Serve(l)
	defer back.Close()
	await(t, "the endpoint to be usable", func() bool { return g.metric(t, "sluice_endpoint_usable", "endpoint", dead) == 1 })
	await(t, "an answer of its", func() bool {
		_, body := askPlain(t, client, "GET", "http://"+g.address()+"/", nil)
		return body == "back"
	})
}

// TestProxyCarriesLargeBodiesInLittleMemory: 100 MB each way.
func TestProxyCarriesLargeBodiesInLittleMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("200 MB")
	}
	const size = 100 << 20
	g := proxied(t, func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		io.Copy(w, r.Body)
	})
	debug.FreeOSMemory()
	var before, now runtime.MemStats
	runtime.ReadMemStats(&before)
	bothVersions(t, func(t *testing.T, client *http.Client) {
		sent, got := sha256.New(), sha256.New()
		res, err := client.Post("http://"+g.address()+"/", "application/octet-stream", io.TeeReader(io.LimitReader(&counting{}, size), sent))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		peak := uint64(0)
		buf := make([]byte, 1<<20)
		for n := int64(0); ; {
			m, err := res.Body.Read(buf)
			got.Write(buf[:m])
			if n += int64(m); n>>23 != (n-int64(m))>>23 { // every 8 MiB
				runtime.ReadMemStats(&now)
				peak = max(peak, now.HeapAlloc)
			}
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(sent.Sum(nil), got.Sum(nil)) {
			t.Error("the bytes are not the same")
		}
		if grown := int64(peak) - int64(before.HeapAlloc); grown > 48<<20 {
			t.Errorf("the heap grew by %d MiB", grown>>20)
		}
	})
}

// counting is bytes without an end.
type counting struct{ n byte }

func (c *counting) Read(p []byte) (int, error) {
	for i := range p {
		c.n += 7
		p[i] = c.n
	}
	return len(p), nil
}

// TestProxyOutlivesChangesOfItsBackend: endpoints come and go under load, and nobody
// notices.
func TestProxyOutlivesChangesOfItsBackend(t *testing.T) {
	t.Parallel()
	var n [3]atomic.Int64
	var addrs []string
	for i := range n {
		addrs = append(addrs, namedBackend(t, fmt.Sprint(i), &n[i]))
	}
	g := startGateway(t, Config{}, http1At("a", addrs[0]), everything("a"))
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var asked atomic.Int64
	for i := range 6 {
		client := plainClient(t, 1+i%2)
		wg.Go(func() {
			for ctx.Err() == nil {
				res, err := client.Post("http://"+g.address()+"/", "text/plain", strings.NewReader("body"))
				if err != nil {
					t.Error(err)
					return
				}
				io.Copy(io.Discard, res.Body)
				res.Body.Close()
				if asked.Add(1); res.StatusCode != 200 {
					t.Errorf("got %d", res.StatusCode)
					return
				}
			}
		})
	}
	for i := range 30 {
		before := asked.Load()
		g.apply(t, backendWith("a", fmt.Sprintf("protocol: http1\nconnection: {maxConnections: %d}", 50+i%2), addrs[i%3], addrs[(i+1)%3]+fmt.Sprintf("=%d", i%2)), everything("a"))
		await(t, "requests to go on", func() bool { return asked.Load() > before+20 || t.Failed() })
	}
	stop()
	wg.Wait()
	for i := range n {
		if n[i].Load() == 0 {
			t.Errorf("endpoint %d had no request", i)
		}
	}
}

// TestProxyHasBoundedConnections: what is over the bound is refused, not queued.
func TestProxyHasBoundedConnections(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	var once sync.Once
	defer once.Do(func() { close(release) })
	began := make(chan struct{}, 10)
	addr := httpBackend(t, func(w http.ResponseWriter, r *http.Request) {
		began <- struct{}{}
		<-release
	})
	g := startGateway(t, Config{}, backendWith("a", "protocol: http1\nconnection: {maxConnections: 2}", addr), everything("a"))
	client := plainClient(t, 2)
	answers := make(chan int, 2)
	for range 2 {
		go func() {
			res, err := client.Get("http://" + g.address() + "/")
			if err != nil {
				answers <- 0
				return
			}
			res.Body.Close()
			answers <- res.StatusCode
		}()
		<-began
	}
	res, body := askPlain(t, client, "GET", "http://"+g.address()+"/", nil)
	if _, message := failure(t, res, body); res.StatusCode != 503 || message != "sluice: every connection to the backend is at its limit of streams" {
		t.Errorf("over the bound: %d %q", res.StatusCode, message)
	}
	once.Do(func() { close(release) })
	for range 2 {
		if got := <-answers; got != 200 {
			t.Errorf("within the bound: %d", got)
		}
	}
}

// TestProxyReachesBackendsOfHTTP2: those that say that they take plain HTTP.
func TestProxyReachesBackendsOfHTTP2(t *testing.T) {
	t.Parallel()
	addr := httpBackendOfHTTP2(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Trailer", "X-Sum")
		fmt.Fprintf(w, "%s %s %s %s %s %s", r.Proto, r.Method, r.Host, r.RequestURI, body, r.Trailer.Get("X-T"))
		w.Header().Set("X-Sum", "1")
	})
	g := startGateway(t, Config{}, backendWith("a", "accepts: [GRPC, HTTP]", addr), everything("a"))
	bothVersions(t, func(t *testing.T, client *http.Client) {
		r, _ := http.NewRequest("POST", "http://"+g.address()+"/x%2Fy?z", io.MultiReader(strings.NewReader("body")))
		r.Host, r.Trailer = "shop", http.Header{"X-T": {"t"}}
		res, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if want := "HTTP/2.0 POST shop /x%2Fy?z body t"; string(body) != want || err != nil || res.Trailer.Get("X-Sum") != "1" {
			t.Errorf("got %q, %v, trailers %v; want %q", body, err, res.Trailer, want)
		}
	})
}

// TestProxyTellsThatTheGatewayShutsDown: a request that is open when the grace is over.
func TestProxyTellsThatTheGatewayShutsDown(t *testing.T) {
	t.Parallel()
	for _, version := range []int{1, 2} {
		began := make(chan struct{}, 1)
		g := startGateway(t, Config{Grace: 50 * time.Millisecond}, http1At("a", httpBackend(t, func(w http.ResponseWriter, r *http.Request) {
			began <- struct{}{}
			<-r.Context().Done()
		})), everything("a"))
		client := plainClient(t, version)
		go func() {
			<-began
			g.cancel()
		}()
		res, body := askPlain(t, client, "GET", "http://"+g.address()+"/", nil)
		if _, message := failure(t, res, body); res.StatusCode != 503 || message != "sluice: the gateway is shutting down" {
			t.Errorf("HTTP/%d: got %d %q", version, res.StatusCode, body)
		}
		g.end(t)
	}
}

// dialRaw is a connection to a gateway on which bytes are written as they are.
func dialRaw(t testing.TB, address string) *rawConn {
	t.Helper()
	nc, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(patience))
	return &rawConn{nc, bufio.NewReader(nc)}
}

// TestProxySendsARefusedStreamAgain, once, and not when some of its body has gone: the
// backend has not acted on it, and the body is not kept.
func TestProxySendsARefusedStreamAgain(t *testing.T) {
	t.Parallel()
	s := startScript(t, manners{})
	g := startGateway(t, Config{}, backendWith("a", "accepts: [GRPC, HTTP]", s.addr), everything("a"))
	client := plainClient(t, 2)
	answers := make(chan string, 1)
	send := func(method string, body io.Reader) {
		go func() {
			res, text := askPlain(t, client, method, "http://"+g.address()+"/", body)
			answers <- fmt.Sprint(res.StatusCode, " ", text)
		}()
	}
	send("GET", nil)
	p := s.accept(t)
	p.reset(p.awaitRequest().id, http2.ErrCodeRefusedStream)
	p.headers(p.awaitRequest().id, true, ":status", "204")
	if got := <-answers; got != "204 " {
		t.Errorf("refused once: %q", got)
	}
	send("GET", nil)
	for range 2 {
		p.reset(p.awaitRequest().id, http2.ErrCodeRefusedStream)
	}
	if got := <-answers; !strings.HasPrefix(got, "503 ") || !strings.Contains(got, "sluice: the backend refused the stream") {
		t.Errorf("refused twice: %q", got)
	}
	send("POST", strings.NewReader("body"))
	id := p.awaitRequest().id
	p.awaitBytes(id, len("body"))
	p.reset(id, http2.ErrCodeRefusedStream)
	if got := <-answers; !strings.HasPrefix(got, "503 ") {
		t.Errorf("refused with its body: %q", got)
	}
}

// TestPassageNamesWhatTheTransportSays: errors that take long to provoke.
func TestPassageNamesWhatTheTransportSays(t *testing.T) {
	t.Parallel()
	for want, err := range map[outcome]error{
		backendTimeout: &url.Error{Err: os.ErrDeadlineExceeded},
		backendLost:    io.ErrUnexpectedEOF,
		exhausted:      &noneLeft{fmt.Errorf("x: %w", upstream.ErrFull)},
		crowded:        &noneLeft{upstream.ErrCrowded},
		unreachable:    &noneLeft{upstream.ErrDown},
		backendStalled: &h2.StreamError{Ending: h2.Ending{How: h2.Stalled}},
		refused:        &h2.StreamError{Ending: h2.Ending{Unprocessed: true}},
	} {
		p := &passage{errand: &errand{placement: &placement{backend: &upstream.Backend{}}}}
		if got := p.outcomeOf(err); got != want {
			t.Errorf("%v: got %v, want %v", err, got, want)
		}
	}
	for o, want := range map[outcome]int{
		noHostname: 404, noRule: 404, noBackend: 503, unresolved: 503, noEndpoint: 503, unreachable: 503, exhausted: 503, crowded: 503, refused: 503, draining: 503,
		backendLost: 502, backendReset: 502, backendInvalid: 502, backendStalled: 502, responseHeaders: 502, backendTimeout: 504, deadline: 504, badTarget: 400, unsupported: 501, requestHeaders: 431,
	} {
		if st := plainStatus(o, "why"); st.HTTPStatus() != want || st.Message != "sluice: why" || !st.Gateway {
			t.Errorf("%v: got %d %q, want %d", o, st.HTTPStatus(), st.Message, want)
		}
	}
}
