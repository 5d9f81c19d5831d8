package gateway

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"sluice/gateway/h2"
	"sluice/gateway/wire"
	"sluice/store"
)

// TestRateLimitHoldsForEveryCaller: each key has its own limit, whatever protocol it comes
// in, and who is over it takes nothing from others.
func TestRateLimitHoldsForEveryCaller(t *testing.T) {
	t.Parallel()
	b := startGrid(t, "a")
	g := startGateway(t, Config{}, gridSchema(t), backendAt("a", b.addr), routeTo("r", "a"),
		policyFor("r", "rateLimits: [{requests: 1000, interval: 1h}, {requests: 2, interval: 1h, key: {header: X-User}}]"))
	callers := 0
	onGrid(t, g, func(t *testing.T, c gridCaller) {
		callers++
		as := func(user string) gridEnd {
			return c.must(t, gridAsk{method: "Name", header: map[string]string{"X-User": user}})
		}
		for range 2 {
			if end := as(c.name); end.code != wire.OK {
				t.Fatalf("below the limit: %v", end)
			}
		}
		for range 3 {
			if end := as(c.name); end.code != wire.ResourceExhausted || end.message != "sluice: the route's rate limit is reached" {
				t.Errorf("over the limit: %v", end)
			}
		}
		if end := as(c.name + ", a bystander"); end.code != wire.OK {
			t.Errorf("a bystander: %v", end)
		}
	})
	if got, want := g.metric(t, "sluice_limited_total", "route", "default/r", "rule", "all"), float64(3*callers); got != want {
		t.Errorf("%v were limited, want %v", got, want)
	}
	if got, want := g.metric(t, "sluice_rpc_outcome_total", "outcome", "limited"), float64(3*callers); got != want {
		t.Errorf("%v ended so, want %v", got, want)
	}
}

// TestSaturationHoldsForEveryCaller: one RPC more than a backend may have is refused, and
// let in when there is room again.
func TestSaturationHoldsForEveryCaller(t *testing.T) {
	t.Parallel()
	b := startGrid(t, "a")
	g := startGateway(t, Config{}, gridSchema(t), backendWith("a", "limits: {maxRequests: 1}", b.addr), routeTo("r", "a"))
	onGrid(t, g, func(t *testing.T, c gridCaller) {
		ctx, cancel := context.WithCancel(shortly(t))
		var work sync.WaitGroup
		work.Go(func() { c.call(ctx, gridAsk{method: "Hang"}) })
		await(t, "an RPC to be open", func() bool { return g.pool.Backend("default/a").Endpoints[0].Active() == 1 })
		if end := c.must(t, gridAsk{method: "Name"}); end.code != wire.ResourceExhausted || end.message != "sluice: the backend has as many RPCs as it may" {
			t.Errorf("one too many: %v", end)
		}
		cancel()
		work.Wait()
		await(t, "room", func() bool { return g.metric(t, "sluice_rpc_open") == 0 })
		if end := c.must(t, gridAsk{method: "Name"}); end.code != wire.OK {
			t.Errorf("with room again: %v", end)
		}
	})
	if got := g.metric(t, "sluice_backend_full_total", "bound", "requests"); got == 0 {
		t.Error("nobody was counted")
	}
}

// refusalIn reads the details of a refusal.
func refusalIn(t *testing.T, raw []byte) (reason string, after time.Duration) {
	t.Helper()
	var st statuspb.Status
	if err := proto.Unmarshal(raw, &st); err != nil {
		t.Fatal(err)
	}
	for _, d := range st.Details {
		m, err := d.UnmarshalNew()
		if err != nil {
			t.Fatal(err)
		}
		switch m := m.(type) {
		case *errdetails.ErrorInfo:
			if reason = m.GetReason(); m.GetDomain() != "sluice.dev" {
				t.Errorf("domain %q", m.GetDomain())
			}
		case *errdetails.RetryInfo:
			after = m.GetRetryDelay().AsDuration()
		}
	}
	if st.Code != int32(codes.ResourceExhausted) || !strings.HasPrefix(st.Message, "sluice: ") {
		t.Errorf("details of %v", &st)
	}
	return reason, after
}

// TestLimitedTellsWhenToComeBack: in RetryInfo, and for HTTP in Retry-After.
func TestLimitedTellsWhenToComeBack(t *testing.T) {
	t.Parallel()
	b := startGrid(t, "a")
	plain := httpBackend(t, func(http.ResponseWriter, *http.Request) {})
	const limit = "rateLimits: [{requests: 1, interval: 90s}]"
	g := startGateway(t, Config{}, gridSchema(t), backendAt("a", b.addr), routeTo("r", "a"), policyFor("r", limit),
		http1At("web", plain), httpRoute("web", "{matches: [{path: {value: /plain}}], backendRefs: ["+ref("web", 1)+"]}"), policyOn("HTTPRoute", "web", limit))
	cc := dial(t, g.address())
	if _, err := invoke(shortly(t), cc, "/grid.Grid/Name", nil); err != nil {
		t.Fatal(err)
	}
	near := func(after time.Duration) bool { return after > 60*time.Second && after <= 90*time.Second }

	_, err := invoke(shortly(t), cc, "/grid.Grid/Name", nil)
	raw, _ := proto.Marshal(status.Convert(err).Proto())
	if reason, after := refusalIn(t, raw); reason != "limited" || !near(after) {
		t.Errorf("gRPC: %q, %v", reason, after)
	}
	client := plainClient(t, 1)
	for _, path := range []string{"/v1/name", "/plain", "/plain"} {
		res, text := askPlain(t, client, "GET", "http://"+g.address()+path, nil)
		if path == "/plain" && res.StatusCode == 200 {
			continue // the first
		}
		seconds, _ := strconv.Atoi(res.Header.Get("Retry-After"))
		if res.StatusCode != 429 || !near(time.Duration(seconds)*time.Second) || !strings.Contains(text, "type.googleapis.com/google.rpc.RetryInfo") {
			t.Errorf("%s: %d %v %q", path, res.StatusCode, res.Header, text)
		}
	}
	res, _ := askPlain(t, client, "POST", "http://"+g.address()+"/grid.Grid/Name", strings.NewReader(string(message(nil))), "Content-Type", "application/grpc-web+proto")
	if reason, after := refusalIn(t, decodeBin(res.Header.Get("Grpc-Status-Details-Bin"))); reason != "limited" || !near(after) || res.StatusCode != 200 {
		t.Errorf("gRPC-Web: %q, %v, %v", reason, after, res.Header)
	}
	res, text := askPlain(t, client, "POST", "http://"+g.address()+"/grid.Grid/Name", strings.NewReader("{}"), "Content-Type", "application/json", "Connect-Protocol-Version", "1")
	if res.StatusCode != 429 || !strings.Contains(text, "google.rpc.RetryInfo") || !strings.Contains(text, `"resource_exhausted"`) {
		t.Errorf("Connect: %d %q", res.StatusCode, text)
	}
}

// TestRateLimitIsPerClient: by the connection's address or, behind proxies that are
// trusted, by what the first of them says.
func TestRateLimitIsPerClient(t *testing.T) {
	t.Parallel()
	b := startBackend(t, "a")
	resources := []string{backendAt("a", b.addr), routeTo("r", "a"), policyFor("r", "rateLimits: [{requests: 1, interval: 1h, key: {clientAddress: true}}]")}
	tests := []struct {
		name    string
		cfg     Config
		headers []string
		want    int // of those are let in
	}{
		{"nobody is believed", Config{}, []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"}, 1},
		{"a proxy is", Config{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}, []string{"192.0.2.1", "192.0.2.2", "192.0.2.1"}, 2},
		{"what the client says of itself is not", Config{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}, []string{"9.9.9.9, 192.0.2.1", "8.8.8.8, 192.0.2.1"}, 1},
		{"two proxies are", Config{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, TrustedHops: 2}, []string{"192.0.2.1, 10.0.0.1", "192.0.2.2, 10.0.0.1"}, 2},
	}
	for _, test := range tests {
		g := startGateway(t, test.cfg, resources...)
		cc := dial(t, g.address())
		in := 0
		for _, header := range test.headers {
			if _, err := invoke(metadata.AppendToOutgoingContext(shortly(t), "x-forwarded-for", header), cc, "/shop.Cart/Echo", nil); err == nil {
				in++
			}
		}
		if in != test.want {
			t.Errorf("%s: %d of %d are let in, want %d", test.name, in, len(test.headers), test.want)
		}
	}
}

// TestLimitsOutliveChanges: a change of configuration forgives nothing that it is not
// about.
func TestLimitsOutliveChanges(t *testing.T) {
	t.Parallel()
	b := startBackend(t, "a")
	const hourly = "rateLimits: [{requests: 2, interval: 1h}]"
	with := func(rule, policy string) []string {
		return []string{backendWith("a", "limits: {maxRequests: 3}", b.addr), routeWith("r", rule, "a"), policyFor("r", policy)}
	}
	g := startGateway(t, Config{}, with("", hourly)...)
	cc := dial(t, g.address())
	ctx, cancel := context.WithCancel(shortly(t))
	defer cancel()
	held := openEcho(ctx, t, cc)
	code := func() codes.Code {
		_, err := invoke(shortly(t), cc, "/shop.Cart/Echo", nil)
		return status.Code(err)
	}
	if got := code(); got != codes.OK {
		t.Fatalf("below the limit: %v", got)
	}
	g.apply(t, with("matches: [{method: {service: shop.Cart}}]", hourly)...)
	if got := code(); got != codes.ResourceExhausted {
		t.Errorf("after a change of the rule: %v", got)
	}
	g.apply(t, with("", hourly+"\nretryConstraint: {}")...)
	if got := code(); got != codes.ResourceExhausted {
		t.Errorf("after a change of the policy: %v", got)
	}
	if got := g.metric(t, "sluice_limited_total"); got != 2 {
		t.Errorf("%v were limited, want 2", got)
	}
	g.apply(t, with("", strings.Replace(hourly, "2", "100", 1))...)
	if got := code(); got != codes.OK {
		t.Errorf("with another limit: %v", got)
	}
	// The stream that has been open all the while counts against the backend's limit.
	g.apply(t, backendWith("a", "limits: {maxRequests: 1}", b.addr), routeTo("r", "a"))
	if got := code(); got != codes.ResourceExhausted {
		t.Errorf("with one open RPC and a limit of one: %v", got)
	}
	held.CloseSend()
	cancel()
	await(t, "room", func() bool { return code() == codes.OK })
	g.apply(t, backendAt("a", b.addr), routeTo("r", "a"))
	if got := code(); got != codes.OK {
		t.Errorf("without limits: %v", got)
	}
}

// openEcho is a stream that has been answered once.
func openEcho(ctx context.Context, t *testing.T, cc *grpc.ClientConn) grpc.ClientStream {
	t.Helper()
	st, err := cc.NewStream(ctx, bidi, "/shop.Cart/Echo")
	if err != nil {
		t.Fatal(err)
	}
	sayHello(t, st)
	return st
}

func sayHello(t *testing.T, st grpc.ClientStream) {
	t.Helper()
	m := []byte("hello")
	if err := st.SendMsg(&m); err != nil {
		t.Fatal(err)
	}
	if err := st.RecvMsg(&m); err != nil || string(m) != "hello" {
		t.Fatalf("got %q, %v", m, err)
	}
}

// TestAdaptiveLimitCountsWhoWaitsForAnAnswer: a stream that has begun to answer is no load.
func TestAdaptiveLimitCountsWhoWaitsForAnAnswer(t *testing.T) {
	t.Parallel()
	b := startBackend(t, "a")
	g := startGateway(t, Config{}, backendWith("a", "limits: {adaptiveConcurrency: {minLimit: 1, maxLimit: 1}}", b.addr), routeTo("r", "a"))
	cc := dial(t, g.address())
	ctx, cancel := context.WithCancel(shortly(t))
	defer cancel()
	openEcho(ctx, t, cc)
	openEcho(ctx, t, cc)
	var work sync.WaitGroup
	work.Go(func() { invoke(ctx, cc, "/shop.Cart/Hang", nil) })
	await(t, "three to be open", func() bool { return g.metric(t, "sluice_rpc_open") == 3 })
	if _, err := invoke(shortly(t), cc, "/shop.Cart/Echo", nil); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("while one waits for its answer: %v", err)
	}
	cancel()
	work.Wait()
	await(t, "all to be over", func() bool { return g.metric(t, "sluice_rpc_open") == 0 })
	if _, err := invoke(shortly(t), cc, "/shop.Cart/Echo", nil); err != nil {
		t.Errorf("when nobody waits: %v", err)
	}
	if g.metric(t, "sluice_backend_adaptive_limit", "backend", "default/a") != 1 || g.metric(t, "sluice_backend_full_total", "bound", "adaptive") != 1 {
		t.Error("the metrics do not tell")
	}
}

// TestPendingIsBounded: of those who wait for a connection, as many wait as may.
func TestPendingIsBounded(t *testing.T) {
	t.Parallel()
	g := startGateway(t, Config{}, backendWith("a", "limits: {maxPending: 2}", listenMute(t)), routeTo("r", "a"))
	client := connect(t, g.address(), manners{})
	for i := range 5 {
		client.request(uint32(2*i+1), "/shop.Cart/Get")
	}
	for _, e := range client.gather("refusals", 3, func(e event) bool { return e.end }) {
		if e.get("grpc-status") != "14" || e.get("grpc-message") != "sluice: "+outcomes[crowded].message {
			t.Errorf("one too many got %v", e)
		}
	}
	if got := g.metric(t, "sluice_backend_full_total", "bound", "pending"); got != 3 {
		t.Errorf("%v were counted, want 3", got)
	}
	client.close()
	await(t, "every RPC to be over", func() bool { return g.metric(t, "sluice_rpc_open") == 0 })
	if n := g.table.Load().guards[0].bounds.Load().pending.Open(); n != 0 {
		t.Errorf("%d wait for ever", n)
	}
}

// TestRetriesAreBounded: as many RPCs are sent again at a time as may be, and no more than
// the budget has.
func TestRetriesAreBounded(t *testing.T) {
	guard := newGuard("default/a")
	guard.adopt(&store.BackendLimits{MaxRetries: 2})
	to := &target{guard: guard, budget: guard.budget}
	now := time.Now()
	entries := make([]*entry, 3)
	for i := range entries {
		entries[i] = guard.enter(guard.bounds.Load(), now)
		if got := to.retry(now, entries[i]); got != (i < 2) {
			t.Errorf("RPC %d may be sent again: %v", i, got)
		}
	}
	if !to.retry(now, entries[0]) {
		t.Error("one that was sent again counts once, and may be again")
	}
	entries[0].leave(0, served)
	if !to.retry(now, entries[2]) {
		t.Error("there is no room when one has left")
	}
	for range 6 {
		to.retry(now, entries[2])
	}
	if to.retry(now, entries[2]) {
		t.Error("the budget of ten a second has an eleventh")
	}
	got := fmt.Sprint(guard.retries[retryAllowed].Load(), guard.retries[retryOverLimit].Load(), guard.retries[retryOverBudget].Load())
	if got != "10 1 1" {
		t.Errorf("allowed, over the limit, over the budget: %s, want 10 1 1", got)
	}
}

// TestEntryGivesBackOnce: whatever happens in whatever order.
func TestEntryGivesBackOnce(t *testing.T) {
	guard := newGuard("default/a")
	limits := &store.BackendLimits{MaxRequests: 1, MaxPending: 1, MaxRetries: 1, AdaptiveConcurrency: &store.AdaptiveConcurrency{MinLimit: 1, MaxLimit: 1}}
	guard.adopt(limits)
	to := &target{guard: guard, budget: guard.budget}
	for range 5 {
		e := guard.enter(guard.bounds.Load(), time.Now())
		if e == nil || !guard.wait(e) || !guard.wait(e) || !to.retry(time.Now(), e) {
			t.Fatal("there is no room where nobody is")
		}
		if guard.enter(guard.bounds.Load(), time.Now()) != nil {
			t.Fatal("there is room for two where one may be")
		}
		guard.adopt(limits) // a change in between
		e.resume()
		e.resume()
		e.answered()
		e.answered()
		e.leave(time.Second, served)
		e.leave(time.Second, served)
	}
	var none *entry
	none.answered()
	none.resume()
	none.leave(0, served)
	if !guard.wait(nil) {
		t.Error("who is not counted may not wait")
	}
}

// TestMemoryGuardShedsNewStreams: a process that is short of memory takes nothing new, goes
// on with what it has, and recovers.
func TestMemoryGuardShedsNewStreams(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector has a memory of its own")
	}
	b := startBackend(t, "a")
	t.Setenv("GOMEMLIMIT", "192MiB")
	p := startProcess(t, "gateway", order{Apply: backendAt("a", b.addr) + "\n---\n" + routeTo("r", "a")})
	cc := dial(t, p.addr)
	ctx, cancel := context.WithCancel(shortly(t))
	defer cancel()
	old := openEcho(ctx, t, cc)
	if p.metric("sluice_memory_short") != 0 {
		t.Fatal("short of memory at the beginning")
	}
	hold := func(mib int) { p.ask(order{Ballast: &mib}) }
	hold(178)
	await(t, "memory to be short", func() bool { return p.metric("sluice_memory_short") == 1 })
	_, err := invoke(shortly(t), cc, "/shop.Cart/Echo", nil)
	if st := status.Convert(err); st.Code() != codes.ResourceExhausted || st.Message() != "sluice: the gateway is short of memory" {
		t.Errorf("a new RPC: %v", err)
	}
	sayHello(t, old)
	hold(0)
	await(t, "memory to be enough", func() bool { return p.metric("sluice_memory_short") == 0 })
	if _, err := invoke(shortly(t), cc, "/shop.Cart/Echo", nil); err != nil {
		t.Errorf("after that: %v", err)
	}
	sayHello(t, old)
	if p.metric("sluice_memory_short_total") != 1 || p.metric("sluice_rpc_outcome_total", "outcome", "shed") != 1 {
		t.Error("the metrics do not tell")
	}
}

// TestGateCountsAgainstAllLimitsOrNone: an RPC that one limit turns away takes nothing of
// the others.
func TestGateCountsAgainstAllLimitsOrNone(t *testing.T) {
	hour := store.Duration(time.Hour)
	g := newGate(gateKey{"default/r", "all"}, &store.Treatment{RateLimits: []store.RateLimit{
		{Requests: 1, Interval: hour}, {Requests: 2, Interval: hour, Key: &store.RateKey{Header: "x-user"}},
	}}, nil, nil)
	if g.rates[0].key.Header != "x-user" {
		t.Error("the limit of all is asked before that of the caller")
	}
	now := time.Now()
	from := &requester{header: headerOf{"X-User": {"a"}}}
	for i := range 6 {
		if ok, _ := g.take(now, from); ok != (i == 0) {
			t.Errorf("RPC %d is let in: %v", i, ok)
		}
	}
	for i := range 2 {
		if ok, _ := g.rates[0].limit.Take(now, "a"); ok != (i == 0) {
			t.Errorf("take %d of what is left to the caller: %v", i, ok)
		}
	}
}

// A client is the same in whatever way a proxy writes its address.
func TestRequesterHasOneAddress(t *testing.T) {
	said := func(forwarded string) string {
		return (&requester{session: &session{hops: 1}, hops: headerOf{"X-Forwarded-For": {forwarded}}}).address()
	}
	for forwarded, want := range map[string]string{
		"192.0.2.7":                   "192.0.2.7",
		"192.0.2.7:4711":              "192.0.2.7",
		"::ffff:192.0.2.7":            "192.0.2.7",
		"[::ffff:192.0.2.7]:4711":     "192.0.2.7",
		"2001:db8:1:2:3:4:5:6":        "2001:db8:1:2::",
		"2001:DB8:1:2::9":             "2001:db8:1:2::",
		"[2001:db8:1:2::9]":           "2001:db8:1:2::",
		"[2001:db8:1:2:ffff::1]:4711": "2001:db8:1:2::",
		"2001:db8:1:3::1":             "2001:db8:1:3::",
		"fe80::1%eth0":                "fe80::",
		"[fe80::1%eth0]:80":           "fe80::",
		"unknown":                     "unknown",
		"_hidden":                     "_hidden",
	} {
		if got := said(forwarded); got != want {
			t.Errorf("x-forwarded-for %q has the key %q, want %q", forwarded, got, want)
		}
	}
	direct := &requester{session: &session{origin: []h2.Field{h2.LiteralField("x-forwarded-for", "2001:db8:1:2::77")}}}
	if got := direct.address(); got != "2001:db8:1:2::" {
		t.Errorf("without a proxy the key is %q", got)
	}
	if got := (&requester{session: &session{}}).address(); got != "" {
		t.Errorf("of nobody the key is %q", got)
	}
}
