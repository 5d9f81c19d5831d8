package gateway

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"sluice/store"
)

// fromStore puts in force what a store of these resources comes to, after the ops.
func (n *node) fromStore(t testing.TB, s *store.Store, text string, ops ...store.Op) {
	t.Helper()
	for _, r := range parse(t, text).Resources() {
		ops = append([]store.Op{{Apply: r}}, ops...)
	}
	if _, err := s.Write(t.Context(), store.Txn{Ops: ops, AllowUnresolved: true}); err != nil {
		t.Fatal(err)
	}
	if err := n.Apply(s.Snapshot().Effective()); err != nil {
		t.Fatal(err)
	}
}

// What policies and operators say of an HTTPRoute holds for plain HTTP as for RPCs.
func TestHTTPRouteIsSteered(t *testing.T) {
	t.Parallel()
	s, err := store.Open(store.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var a, b atomic.Int64
	g := startGateway(t, Config{})
	g.fromStore(t, s, strings.Join([]string{
		http1At("a", namedBackend(t, "a", &a)), http1At("b", namedBackend(t, "b", &b)), http1At("idle"),
		httpRoute("web", "{name: all, backendRefs: ["+ref("a", 1)+", "+ref("b", 0)+", "+ref("idle", 0)+"]}"),
	}, "---\n"))
	client := plainClient(t, 1)
	who := func(header ...string) string {
		t.Helper()
		res, body := askPlain(t, client, http.MethodGet, "http://"+g.address()+"/v1/things", nil, header...)
		if res.StatusCode != http.StatusOK {
			return res.Status
		}
		return body[:1]
	}
	shares := func(n int, header ...string) (in map[string]int) {
		in = map[string]int{}
		for i := range n {
			in[who(append(header, "X-Count", fmt.Sprint(i))...)]++
		}
		return in
	}
	web := store.ID{Kind: store.HTTPRouteKind, Namespace: "default", Name: "web"}
	split := func(edit store.SplitEdit) store.Op {
		return store.Op{ID: web, State: func(state store.State, o *store.Object) (store.State, error) {
			return store.EditSplit(o.Resource.(store.Route), state, "all", edit)
		}}
	}
	if got := shares(20); got["a"] != 20 {
		t.Errorf("as declared: %v", got)
	}
	g.fromStore(t, s, "", split(store.SplitEdit{
		Shares: []store.Share{{Backend: "a", Weight: 3}, {Backend: "b", Weight: 1}},
		Pins:   []store.Pin{{Header: "x-tester", Value: "yes", Backend: "b"}},
	}))
	if got := shares(100); got["a"] != 75 || got["b"] != 25 {
		t.Errorf("split 3:1: %v", got)
	}
	if got := shares(20, "X-Tester", "yes"); got["b"] != 20 {
		t.Errorf("pinned: %v", got)
	}
	observed := g.Observed(web)
	if len(observed) != 1 || !observed[0].Overridden || observed[0].Shares[0].RPCs != 95 || observed[0].Shares[1].RPCs != 45 {
		t.Errorf("observed %+v", observed)
	}

	policy := "apiVersion: sluice.dev/v1alpha1\nkind: RPCPolicy\nmetadata: {name: web}\nspec:\n" +
		"  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: web}]\n" +
		"  split: {sticky: {header: x-user}, whenNoEndpoints: SpillOver}\n" +
		"  cors: {allowOrigins: [\"https://shop.example.com\"]}\n"
	g.fromStore(t, s, policy, split(store.SplitEdit{Reset: true, Shares: []store.Share{{Backend: "a", Weight: 1}, {Backend: "b", Weight: 1}}}))
	var sides [2]int
	for i := range 100 {
		user := fmt.Sprint("user-", i)
		in := shares(3, "X-User", user)
		if len(in) != 1 || in["a"]+in["b"] != 3 {
			t.Fatalf("%s is served by %v", user, in)
		}
		if in["b"] == 3 {
			sides[1]++
		} else {
			sides[0]++
		}
	}
	if sides[0] < 20 || sides[1] < 20 {
		t.Errorf("of a hundred users %v are on each side", sides)
	}
	g.fromStore(t, s, "", split(store.SplitEdit{Shares: []store.Share{{Backend: "idle", Weight: 1}}}))
	if got := shares(20); got["a"]+got["b"] != 20 {
		t.Errorf("what a backend without endpoints would get: %v", got)
	}
	res, _ := askPlain(t, client, http.MethodGet, "http://"+g.address()+"/v1/things", nil, "Origin", "https://shop.example.com")
	if got := res.Header.Get("Access-Control-Allow-Origin"); got != "https://shop.example.com" {
		t.Errorf("a page of another origin is let in by %q", got)
	}
	g.fromStore(t, s, "", store.Op{ID: web, State: func(state store.State, _ *store.Object) (store.State, error) {
		state.Disabled = true
		return state, nil
	}})
	if got := who(); got != "404 Not Found" {
		t.Errorf("disabled: %s", got)
	}
}
