package gateway

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"sluice/store"
)

// patience is how long a test waits for what should come at once.
const patience = 20 * time.Second

// TestMain refuses goroutines of ours that outlive the tests. Under another name
// the test binary is one of the processes that the tests start.
func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		os.Exit(play(role))
	}
	code := m.Run()
	if left := goroutinesLeft("sluice/", "cmux", "google.golang.org/grpc"); code == 0 && left != "" {
		fmt.Fprintln(os.Stderr, "goroutines are left:\n\n"+left)
		code = 1
	}
	os.Exit(code)
}

// goroutinesLeft returns the goroutines that mention one of the words and do not
// end within two seconds.
func goroutinesLeft(words ...string) (left string) {
	for range 200 {
		left = ""
		all := make([]byte, 4<<20)
		for _, g := range strings.Split(string(all[:runtime.Stack(all, true)]), "\n\n") {
			if strings.Contains(g, "goroutinesLeft") || strings.Contains(g, "testing.(*T).Run") || strings.Contains(g, "testing.tRunner.func") {
				continue
			}
			for _, w := range words {
				if strings.Contains(g, w) {
					left += g + "\n\n"
					break
				}
			}
		}
		if left == "" {
			return ""
		}
		<-time.After(10 * time.Millisecond)
	}
	return left
}

// await polls until done, and fails the test when that takes too long.
func await(t testing.TB, what string, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !done() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, patience)
		}
		<-time.After(time.Millisecond)
	}
}

// logged is what was logged.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// node is a gateway that runs.
type node struct {
	*Gateway
	log    *logged
	cancel context.CancelFunc // begins the drain
	ended  chan struct{}      // closed when Run has returned
}

// startGateway runs a gateway with the resources until the test ends.
func startGateway(t testing.TB, cfg Config, resources ...string) *node {
	t.Helper()
	if cfg.Listen.Address == "" && cfg.Listen.Listener == nil {
		cfg.Listen.Address = "127.0.0.1:0"
	}
	if cfg.Grace == 0 {
		cfg.Grace = -1
	}
	n := &node{log: new(logged), ended: make(chan struct{})}
	var err error
	if n.Gateway, err = New(cfg, slog.New(slog.NewTextHandler(n.log, &slog.HandlerOptions{Level: slog.LevelDebug}))); err != nil {
		t.Fatal(err)
	}
	n.apply(t, resources...)
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	go func() {
		defer close(n.ended)
		if err := n.Run(ctx); err != nil {
			t.Errorf("gateway ended: %v", err)
		}
	}()
	t.Cleanup(func() { n.end(t) })
	return n
}

// end stops the gateway and waits for it.
func (n *node) end(t testing.TB) {
	t.Helper()
	n.cancel()
	select {
	case <-n.ended:
	case <-time.After(patience):
		t.Errorf("the gateway still runs %v after it was told to end:\n%s", patience, goroutinesLeft("sluice/gateway"))
	}
}

// parse reads resources, references to nothing included.
func parse(t testing.TB, resources ...string) *store.Set {
	t.Helper()
	set, faults := store.Parse("test.yaml", []byte(strings.Join(resources, "\n---\n")))
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	return set
}

func (n *node) apply(t testing.TB, resources ...string) {
	t.Helper()
	set := parse(t, resources...)
	if len(set.RPCPolicies) > 0 {
		set = effective(t, set)
	}
	if err := n.Apply(set); err != nil {
		t.Fatal(err)
	}
}

// effective is what a store makes of a set: what policies say is in its rules.
func effective(t testing.TB, set *store.Set) *store.Set {
	t.Helper()
	s, err := store.Open(store.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var ops []store.Op
	for _, r := range set.Resources() {
		ops = append(ops, store.Op{Apply: r})
	}
	if _, err := s.Write(t.Context(), store.Txn{Ops: ops, AllowUnresolved: true}); err != nil {
		t.Fatal(err)
	}
	return s.Snapshot().Effective()
}

// address of the port.
func (n *node) address() string { return n.Addr().String() }

// metric sums the samples of one name whose labels include the given pairs.
func (n *node) metric(t testing.TB, name string, pairs ...string) float64 {
	t.Helper()
	return sample(t, n.scrape(t), name, pairs...)
}

// scrape returns what Prometheus would see.
func (n *node) scrape(t testing.TB) map[string]*dto.MetricFamily {
	t.Helper()
	w := httptest.NewRecorder()
	n.Metrics().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return readMetrics(t, w.Body.String())
}

func readMetrics(t testing.TB, text string) map[string]*dto.MetricFamily {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return families
}

func sample(t testing.TB, families map[string]*dto.MetricFamily, name string, pairs ...string) (sum float64) {
	t.Helper()
	family := families[name]
	if family == nil {
		t.Fatalf("no metric %s", name)
	}
	for _, m := range family.Metric {
		if !labelled(m, pairs) {
			continue
		}
		switch {
		case m.Counter != nil:
			sum += m.Counter.GetValue()
		case m.Gauge != nil:
			sum += m.Gauge.GetValue()
		case m.Histogram != nil:
			sum += float64(m.Histogram.GetSampleCount())
		}
	}
	return sum
}

func labelled(m *dto.Metric, pairs []string) bool {
	have := make(map[string]string)
	for _, l := range m.Label {
		have[l.GetName()] = l.GetValue()
	}
	for i := 0; i < len(pairs); i += 2 {
		if have[pairs[i]] != pairs[i+1] {
			return false
		}
	}
	return true
}

// routeTo is a route of every method to backends, each "name" or "name=weight".
func routeTo(name string, refs ...string) string {
	return routeWith(name, "", refs...)
}

// routeOf is a route of one service, "svc.NAME", to the backend of that name.
func routeOf(name string) string {
	return routeWith(name, "matches: [{method: {service: svc."+name+"}}]", name)
}

// routeWith adds lines to the route's only rule, each indented by two.
func routeWith(name, rule string, refs ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {name: %s}\nspec:\n  rules:\n  - name: all\n", name)
	for line := range strings.Lines(rule) {
		b.WriteString("    " + line)
	}
	b.WriteString("\n    backendRefs:\n")
	for _, ref := range refs {
		backend, weight, ok := strings.Cut(ref, "=")
		if !ok {
			weight = "1"
		}
		fmt.Fprintf(&b, "    - {group: sluice.dev, kind: Backend, name: %s, weight: %s}\n", backend, weight)
	}
	return b.String()
}

// policyFor is an RPCPolicy of a GRPCRoute, with lines of its spec.
func policyFor(route, spec string) string {
	return policyOn("GRPCRoute", route, spec)
}

// policyOn is the same for a route of any kind.
func policyOn(kind, route, spec string) string {
	return "apiVersion: sluice.dev/v1alpha1\nkind: RPCPolicy\nmetadata: {name: " + route + "}\nspec:\n" +
		"  targetRefs: [{group: gateway.networking.k8s.io, kind: " + kind + ", name: " + route + "}]\n  " + strings.ReplaceAll(spec, "\n", "\n  ") + "\n"
}

// backendAt is a Backend of endpoints, each "address" or "address=weight".
func backendAt(name string, endpoints ...string) string {
	return backendWith(name, "", endpoints...)
}

// backendWith adds lines to the Backend's spec.
func backendWith(name, spec string, endpoints ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: sluice.dev/v1alpha1\nkind: Backend\nmetadata: {name: %s}\nspec:\n", name)
	for line := range strings.Lines(spec) {
		b.WriteString("  " + line)
	}
	b.WriteString("\n  endpoints: [")
	for _, e := range endpoints {
		address, weight, ok := strings.Cut(e, "=")
		if !ok {
			weight = "1"
		}
		fmt.Fprintf(&b, "{address: %q, weight: %s}, ", address, weight)
	}
	b.WriteString("]\n")
	return b.String()
}
