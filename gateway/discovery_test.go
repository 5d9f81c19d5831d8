package gateway

import (
	"bytes"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"sluice/gateway/listen"
	"sluice/store"
)

// steadyLoad makes RPCs and short streams, each with a nonce of its own that has to come
// back, until it is told to stop.
type steadyLoad struct {
	t       *testing.T
	service string
	done    atomic.Int64
	failed  atomic.Int64
	stop    chan struct{}
	work    sync.WaitGroup
}

// startLoad has so many callers call, on connections of their own.
func startLoad(t *testing.T, g *node, service string, callers int) *steadyLoad {
	l := &steadyLoad{t: t, service: service, stop: make(chan struct{})}
	for i := range callers {
		cc := dial(t, g.address())
		l.work.Go(func() {
			for n := 0; !l.over(); n++ {
				l.call(cc, fmt.Appendf(nil, "%s-%d-%d", service, i, n))
			}
		})
	}
	return l
}

func (l *steadyLoad) over() bool {
	select {
	case <-l.stop:
		return true
	default:
		return false
	}
}

func (l *steadyLoad) call(cc *grpc.ClientConn, nonce []byte) {
	got, err := invoke(shortly(l.t), cc, "/svc."+l.service+"/Echo", nonce)
	if l.done.Add(1); err != nil || !bytes.Equal(got, nonce) {
		if l.failed.Add(1) < 5 {
			l.t.Errorf("%s: %q, %v", nonce, got, err)
		}
	}
}

// end stops the load and tells how many calls it has made.
func (l *steadyLoad) end() int64 {
	close(l.stop)
	l.work.Wait()
	if n := l.failed.Load(); n > 0 {
		l.t.Errorf("%d of %d calls of %s failed", n, l.done.Load(), l.service)
	}
	return l.done.Load()
}

// crowd is one backend at many addresses.
func crowd(t *testing.T, name string, n int) (b *backend, addresses []string) {
	t.Helper()
	b = startBackend(t, name)
	addresses = append(addresses, b.addr)
	for range n - 1 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go b.grpc.Serve(l)
		addresses = append(addresses, l.Addr().String())
	}
	return b, addresses
}

// awaitFound waits until so many endpoints take RPCs.
func (n *node) awaitFound(t *testing.T, backend string, want int) {
	t.Helper()
	await(t, fmt.Sprintf("%d endpoints of %s", want, backend), func() bool { return len(n.pool.Backend("default/"+backend).Endpoints) == want })
}

// TestDiscoveryChangesUnderLoad: answers come that bring endpoints and take others away,
// and no RPC fails, of that backend or of another.
func TestDiscoveryChangesUnderLoad(t *testing.T) {
	t.Parallel()
	names := startNames(t)
	_, addresses := crowd(t, "x", 10)
	y := startBackend(t, "y")
	names.say(addresses[:3]...)
	g := startGateway(t, Config{})
	g.applySet(t, hurried(parse(t, foundBy("x", names), routeOf("x"), backendAt("y", y.addr), routeOf("y")), store.Duration(20*time.Millisecond)))
	g.awaitFound(t, "x", 3) // they were asked for beside the first set
	st := stream(t, t.Context(), dial(t, g.address()), "/svc.y/Echo")
	own, other := startLoad(t, g, "x", 4), startLoad(t, g, "y", 2)
	const changes = 20
	for i := range changes {
		want := addresses[i%5 : i%5+3+i%3]
		names.say(want...)
		await(t, "the change to be in force", func() bool {
			list := g.pool.Backend("default/x").Endpoints
			if len(list) != len(want) {
				return false
			}
			for _, e := range list {
				if !strings.Contains(strings.Join(want, " ")+" ", e.Address()+" ") {
					return false
				}
			}
			return true
		})
		say(t, st, fmt.Append(nil, i))
		if got := hear(t, st); string(got) != fmt.Sprint(i) {
			t.Errorf("the stream of the other backend says %q after change %d", got, i)
		}
	}
	names.fail(dns.RcodeServerFailure)
	await(t, "a failed look-up", func() bool { return g.metric(t, "sluice_dns_lookups_total", "result", "failed") >= 2 })
	t.Logf("%d changes; %d calls of their backend and %d of another, none failed", changes, own.end(), other.end())
	if d, ok := g.Discovery("default/x"); !ok || !strings.Contains(d.Problem, "the last good answer is kept") || d.Addresses == 0 {
		t.Errorf("discovery %+v, %v", d, ok)
	}
	if err := g.Problems()[store.ID{Kind: store.BackendKind, Namespace: "default", Name: "x"}]; err == nil || !strings.Contains(err.Error(), "SERVFAIL") {
		t.Errorf("the problem is %v", err)
	}
	if got := g.metric(t, "sluice_dns_problem", "backend", "default/x"); got != 1 {
		t.Errorf("sluice_dns_problem is %v", got)
	}
	if got := g.metric(t, "sluice_conn_opened_total", "side", "upstream"); got > 3*changes {
		t.Errorf("%v connections were opened: those that stay do not keep theirs", got)
	}
}

// TestDiscoveryOfTheGatewayItself: RPCs would go round for ever.
func TestDiscoveryOfTheGatewayItself(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"127.0.0.1:0", "0.0.0.0:0"} {
		names := startNames(t)
		b := startBackend(t, "b")
		g := startGateway(t, Config{Listen: listen.Config{Address: address}})
		_, port, _ := net.SplitHostPort(g.address())
		self := "127.0.0.1:" + port
		names.say(self, b.addr)
		g.apply(t, foundBy("x", names), routeTo("x", "x"))
		g.awaitFound(t, "x", 1)
		cc := dial(t, self)
		for range 10 {
			if got := mustCall(t, cc, "/shop.Cart/Who", nil); string(got) != "b" {
				t.Errorf("got %q", got)
			}
		}
		if d, _ := g.Discovery("default/x"); d.Addresses != 1 || !strings.Contains(d.Problem, `"`+self+`" is the gateway itself: left out`) {
			t.Errorf("discovery %+v", d)
		}
		g.end(t)
	}
}

// TestDiscoveryAtTheStart: the first set waits for the names of its backends, and not for
// long when nobody answers.
func TestDiscoveryAtTheStart(t *testing.T) {
	t.Parallel()
	names := startNames(t)
	b := startBackend(t, "b")
	names.say(b.addr)
	g := startGateway(t, Config{}, foundBy("x", names), routeTo("x", "x"))
	if got := mustCall(t, dial(t, g.address()), "/shop.Cart/Who", nil); string(got) != "b" {
		t.Errorf("got %q", got)
	}

	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	begun := time.Now()
	g = startGateway(t, Config{}, foundBy("x", &nameServer{addr: silent.LocalAddr().String()}), routeTo("x", "x"))
	if d := time.Since(begun); d < firstLookUps || d > firstLookUps+time.Second {
		t.Errorf("the first set was in force after %v, want %v", d, firstLookUps)
	}
	_, err = invoke(shortly(t), dial(t, g.address()), "/shop.Cart/Who", nil)
	wantStatus(t, "without an answer", err, codes.Unavailable, "sluice: the backend has no endpoint")
}

// TestHundredEndpointsComeAndGoUnderLoad, one after the other, and no RPC fails.
func TestHundredEndpointsComeAndGoUnderLoad(t *testing.T) {
	t.Parallel()
	const many = 100
	_, addresses := crowd(t, "x", many+1)
	g := startGateway(t, Config{}, backendAt("x", addresses[0]), routeOf("x"))
	load := startLoad(t, g, "x", 4)
	put := func(list []string) {
		g.apply(t, backendAt("x", list...), routeOf("x"))
		before := load.done.Load()
		await(t, "some calls", func() bool { return load.done.Load() >= before+4 })
	}
	for n := 1; n <= many; n++ {
		put(addresses[:n+1])
	}
	for n := 1; n <= many; n++ {
		put(addresses[n:])
	}
	t.Logf("%d endpoints came and went; %d calls, none failed", many, load.end())
}
