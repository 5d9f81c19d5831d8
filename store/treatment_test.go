package store

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

var web = ID{HTTPRouteKind, "default", "web"}

// twoKinds is a GRPCRoute and an HTTPRoute of one name, and their backends.
const twoKinds = `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  rules:
  - name: all
    backendRefs:
    - {group: sluice.dev, kind: Backend, name: web-v1, weight: 90}
    - {group: sluice.dev, kind: Backend, name: web-v2, weight: 10}
  - matches: [{path: {value: /own}}]
    filters: [{type: CORS, cors: {allowOrigins: ["https://own.example"], maxAge: 60}}]
    backendRefs: [{group: sluice.dev, kind: Backend, name: web-v2}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: web}
spec:
  rules:
  - name: all
    backendRefs: [{group: sluice.dev, kind: Backend, name: web-v1}]
---
apiVersion: sluice.dev/v1alpha1
kind: Backend
metadata: {name: web-v1}
spec: {endpoints: [{address: "web-v1:80"}], protocol: http1}
---
apiVersion: sluice.dev/v1alpha1
kind: Backend
metadata: {name: web-v2}
spec: {endpoints: [{address: "web-v2:80"}], protocol: http1}
`

func policyOn(name, kind, target, fields string) string {
	return "apiVersion: sluice.dev/v1alpha1\nkind: RPCPolicy\nmetadata: {name: " + name + "}\n" +
		"spec: {targetRefs: [{group: gateway.networking.k8s.io, kind: " + kind + ", " + target + "}], " + fields + "}\n"
}

func effectiveRules(s *Store) (grpc GRPCRouteRule, http, own HTTPRouteRule) {
	set := s.Snapshot().Effective()
	return set.GRPCRoutes[0].Spec.Rules[0], set.HTTPRoutes[0].Spec.Rules[0], set.HTTPRoutes[0].Spec.Rules[1]
}

func TestEffectiveTreatsByPolicies(t *testing.T) {
	wall := newTestClock()
	s := openStore(t, Options{Now: wall.Now})
	applyText(t, s, twoKinds)
	origins := func(c *CORS) string {
		if c == nil {
			return "none"
		}
		return strings.Join(c.AllowOrigins, " ")
	}
	check := func(step, grpc, http, own string) {
		t.Helper()
		g, h, o := effectiveRules(s)
		for _, rule := range []struct {
			name, want string
			got        *CORS
		}{{"GRPCRoute", grpc, g.Treatment.CORS}, {"HTTPRoute", http, h.Treatment.CORS}, {"with a filter", own, o.Treatment.CORS}} {
			if got := origins(rule.got); got != rule.want {
				t.Errorf("%s: %s lets in %s, want %s", step, rule.name, got, rule.want)
			}
		}
	}
	check("no policy", "none", "none", "https://own.example")
	applyText(t, s, policyOn("route", "HTTPRoute", "name: web", `cors: {allowOrigins: ["https://route.example"]}`))
	check("a policy for the HTTPRoute", "none", "https://route.example", "https://own.example")
	wall.pass(time.Hour)
	applyText(t, s, policyOn("both", "GRPCRoute", "name: web", `cors: {allowOrigins: ["https://grpc.example"]}, expose: {reflection: true}`))
	check("a policy for the GRPCRoute of that name", "https://grpc.example", "https://route.example", "https://own.example")
	applyText(t, s, policyOn("rule", "HTTPRoute", "name: web, sectionName: all", `cors: {allowOrigins: ["https://rule.example"]}, translation: {unknownFields: Ignore}`))
	check("a policy for the rule", "https://grpc.example", "https://rule.example", "https://own.example")
	wall.pass(time.Hour)
	applyText(t, s, policyOn("later", "HTTPRoute", "name: web", "translation: {maxMessageBytes: 1000}, split: {whenNoEndpoints: SpillOver}"))

	g, h, o := effectiveRules(s)
	ignoring, small := DefaultTranslation, DefaultTranslation
	ignoring.UnknownFields, small.MaxMessageBytes = IgnoreUnknown, 1000
	if g.Treatment.Translation != DefaultTranslation || h.Treatment.Translation != ignoring || o.Treatment.Translation != small {
		t.Errorf("translation %+v, %+v, %+v", g.Treatment.Translation, h.Treatment.Translation, o.Treatment.Translation)
	}
	if !g.Treatment.Expose.Reflection || g.Treatment.Expose.OpenAPI || h.Treatment.Expose != (Expose{}) {
		t.Errorf("expose %+v, %+v", g.Treatment.Expose, h.Treatment.Expose)
	}
	if g.Steering.SpillOver || !h.Steering.SpillOver || !o.Steering.SpillOver {
		t.Error("spill-over is not where the policy says")
	}
	s = reopen(t, s)
	g2, h2, o2 := effectiveRules(s)
	if !reflect.DeepEqual([]any{g2.Treatment, h2.Treatment, o2.Treatment}, []any{g.Treatment, h.Treatment, o.Treatment}) {
		t.Errorf("after a restart %+v, %+v, %+v", g2.Treatment, h2.Treatment, o2.Treatment)
	}
	// What is declared stays as it was declared.
	if rule := mustGet(t, s, web).Resource.(*HTTPRoute).Spec.Rules[0]; !reflect.DeepEqual(rule.Treatment, Treatment{Translation: DefaultTranslation}) || rule.Steering.SpillOver {
		t.Errorf("the declaration has %+v, %+v", rule.Treatment, rule.Steering)
	}
	mustWrite(t, s, Txn{Ops: []Op{{ID: ID{RPCPolicyKind, "", "rule"}, Delete: true}}})
	check("the policy of the rule is gone", "https://grpc.example", "https://route.example", "https://own.example")
	mustWrite(t, s, Txn{Ops: []Op{{ID: ID{RPCPolicyKind, "", "route"}, Delete: true}}})
	applyText(t, s, policyOn("two", "GRPCRoute, name: web}, {group: gateway.networking.k8s.io, kind: HTTPRoute", "name: web, sectionName: other", `cors: {allowOrigins: ["https://two.example"]}`))
	check("of two routes, one has not the rule that is named", "https://grpc.example", "none", "https://own.example")
}

// Each field counts by itself, of whatever policy says something about it.
func TestEffectiveTreatsFieldByField(t *testing.T) {
	wall := newTestClock()
	s := openStore(t, Options{Now: wall.Now})
	applyText(t, s, twoKinds)
	for _, text := range []string{
		policyOn("a", "HTTPRoute", "name: web", "timeouts: {request: 9s, streamIdle: 1m}, rateLimits: [{requests: 5}]"),
		policyOn("b", "HTTPRoute", "name: web, sectionName: all", "timeouts: {default: 2s}, hedging: {delay: 10ms}"),
		policyOn("c", "HTTPRoute", "name: web", "retry: {attempts: 3}, retryConstraint: {budget: {percent: 7}}, rateLimits: [{requests: 6}]"),
		policyOn("d", "HTTPRoute", "name: web, sectionName: all", "rateLimits: []"), // says nothing
	} {
		applyText(t, s, text)
		wall.pass(time.Hour)
	}
	for range 2 {
		_, all, own := effectiveRules(s)
		retry := &RetryPolicy{
			Attempts: 3, Codes: []Code{"UNAVAILABLE"}, Methods: AllMethods,
			Backoff: Backoff{Duration(25 * time.Millisecond), Duration(250 * time.Millisecond)},
		}
		constraint := &RetryConstraint{RetryBudget{7, Duration(10 * time.Second)}, RetryRate{10, Duration(time.Second)}, GatewayScope}
		limits := []RateLimit{{Requests: 5, Interval: Duration(time.Second), Burst: 5, Scope: GatewayScope}}
		want := Treatment{
			Translation: DefaultTranslation, Timeouts: &RPCTimeouts{Default: Duration(2 * time.Second)}, Retry: retry,
			RetryConstraint: constraint, Hedging: &Hedging{1, Duration(10 * time.Millisecond)}, RateLimits: limits,
		}
		if !reflect.DeepEqual(all.Treatment, want) {
			t.Errorf("the rule that is named has %+v, want %+v", all.Treatment, want)
		}
		want.CORS, want.Hedging = own.Treatment.CORS, nil
		want.Timeouts = &RPCTimeouts{Request: Duration(9 * time.Second), StreamIdle: Duration(time.Minute)}
		if !reflect.DeepEqual(own.Treatment, want) {
			t.Errorf("the other rule has %+v, want %+v", own.Treatment, want)
		}
		s = reopen(t, s)
	}
}

// A policy that an earlier version has kept means what it meant then.
func TestEffectiveFillsInWhatOlderPoliciesLack(t *testing.T) {
	old, err := Decode(RPCPolicyKind, []byte(`{"metadata": {"namespace": "default", "name": "p"}, "spec": {
		"targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "web"}],
		"timeouts": {"request": "2s"}, "retry": {"attempts": 2, "codes": ["ABORTED"]}}}`))
	if err != nil {
		t.Fatal(err)
	}
	s := openStore(t, Options{})
	applyText(t, s, twoKinds)
	mustWrite(t, s, Txn{Ops: []Op{{Apply: old}}})
	_, rule, _ := effectiveRules(s)
	want := &RetryPolicy{
		Attempts: 2, Codes: []Code{"ABORTED"}, Methods: AllMethods,
		Backoff: Backoff{Duration(DefaultBackoffBase), Duration(DefaultBackoffMax)},
	}
	if got := rule.Treatment; !reflect.DeepEqual(got.Retry, want) || *got.Timeouts != (RPCTimeouts{Request: Duration(2 * time.Second)}) {
		t.Errorf("retry %+v, timeouts %+v", got.Retry, got.Timeouts)
	}
	if kept := mustGet(t, s, ResourceID(old)).Resource.(*RPCPolicy).Spec.Retry; kept.Methods != "" {
		t.Errorf("the declaration became %+v", kept)
	}
}

// An HTTPRoute is split, pinned, made sticky and disabled as a GRPCRoute is.
func TestHTTPRouteIsSplit(t *testing.T) {
	s := openStore(t, Options{})
	applyText(t, s, twoKinds)
	edit := func(e SplitEdit) {
		t.Helper()
		mustWrite(t, s, Txn{Ops: []Op{{ID: web, State: func(state State, o *Object) (State, error) {
			return EditSplit(o.Resource.(Route), state, "all", e)
		}}}})
	}
	weights := func() []uint32 {
		_, rule, _ := effectiveRules(s)
		return []uint32{rule.BackendRefs[0].Weight, rule.BackendRefs[1].Weight}
	}
	edit(SplitEdit{Shares: []Share{{"web-v1", 1}, {"web-v2", 1}}, Pins: []Pin{{"X-User", "alice", "web-v2"}}, Sticky: ptr("X-User"), SpillOver: ptr(true)})
	_, rule, other := effectiveRules(s)
	want := Steering{Pins: []Pin{{"x-user", "alice", "default/web-v2"}}, Sticky: "x-user", Sides: rule.Steering.Sides, SpillOver: true, Overridden: true}
	if !reflect.DeepEqual(rule.Steering, want) || !slices.Equal(weights(), []uint32{1, 1}) {
		t.Errorf("steering %+v, weights %v", rule.Steering, weights())
	}
	if to := moved(rule.Steering.Sides, plainSides([]Share{{"default/web-v1", 90}, {"default/web-v2", 10}})); to > 1<<31 {
		t.Errorf("%d of %d values moved; sides %v", to, uint64(space), rule.Steering.Sides)
	}
	if !reflect.DeepEqual(other.Steering, Steering{}) || other.BackendRefs[0].Weight != 1 {
		t.Errorf("the other rule is steered by %+v", other.Steering)
	}
	// Sides follow the declared weights, when an operator has not said other ones.
	edit(SplitEdit{Reset: true, Sticky: ptr("x-user")})
	for weight, end := range map[string]uint64{"450": space * 9 / 10, "50": space / 2} {
		applyText(t, s, strings.NewReplacer("weight: 90", "weight: "+weight, "weight: 10", "weight: 50").Replace(twoKinds))
		_, rule, _ := effectiveRules(s)
		route := s.Snapshot().Effective().HTTPRoutes[0]
		sides := sidesInForce(route, rule.BackendRefs, mustGet(t, s, web).State.Split("all"))
		if rule.Steering.Sticky != "x-user" || rule.Steering.Overridden || len(sides) != 2 || max(sides[0].End, end)-min(sides[0].End, end) > 1 {
			t.Errorf("weight %s: steering %+v, sides %v, want the first to end at %d", weight, rule.Steering, sides, end)
		}
	}
	edit(SplitEdit{Reset: true})
	applyText(t, s, strings.NewReplacer("weight: 90", "weight: 50", "weight: 10", "weight: 50").Replace(twoKinds))
	s = reopen(t, s)
	if _, rule, _ := effectiveRules(s); !reflect.DeepEqual(rule.Steering, Steering{}) || !slices.Equal(weights(), []uint32{50, 50}) {
		t.Errorf("after a reset: %+v, weights %v", rule.Steering, weights())
	}
	mustWrite(t, s, Txn{Ops: []Op{setState(web, State{Disabled: true})}})
	if set := s.Snapshot().Effective(); len(set.HTTPRoutes) != 0 || len(set.GRPCRoutes) != 1 {
		t.Errorf("disabled: %d HTTPRoutes, %d GRPCRoutes", len(set.HTTPRoutes), len(set.GRPCRoutes))
	}
	if _, err := EditSplit(parseText(t, twoKinds).HTTPRoutes[0], State{}, "none", SplitEdit{}); err == nil || !strings.Contains(err.Error(), `HTTPRoute default/web has no rule "none": it has all, 1`) {
		t.Errorf("a rule that there is not: %v", err)
	}
}

func TestPoliciesTargetHTTPRoutes(t *testing.T) {
	for target, want := range map[string]string{
		"name: web":                     "",
		"name: web, sectionName: all":   "",
		"name: web, sectionName: other": "spec.targetRefs[0].sectionName: HTTPRoute default/web has no rule named other",
		"name: cart":                    "spec.targetRefs[0].name: no HTTPRoute default/cart is declared",
	} {
		got := parseText(t, twoKinds+"---\n"+policyOn("p", "HTTPRoute", target, "cors: {}")).Unresolved().Error()
		if _, message, _ := strings.Cut(got, ": "); message != want {
			t.Errorf("%s: %s, want %s", target, got, want)
		}
	}
}

// Mirrors refer to backends, too, wherever they stand.
func TestMirrorsReferToBackends(t *testing.T) {
	mirror := "filters: [{type: RequestMirror, requestMirror: {backendRef: {group: sluice.dev, kind: Backend, name: %}}}]"
	text := httpText(strings.Replace(mirror, "%", "shadow-a", 1) + ", backendRefs: [{name: cart-v1}, {name: cart-v1, " + strings.Replace(mirror, "%", "shadow-b", 1) + "}]")
	s := openStore(t, Options{})
	applyText(t, s, backendText("cart-v1", ""))
	mustWrite(t, s, Txn{AllowUnresolved: true, Ops: applyOps(parseText(t, text))})
	var fields []string
	for _, f := range s.Snapshot().Unresolved(mustGet(t, s, ID{HTTPRouteKind, "default", "r"})) {
		fields = append(fields, f.Field)
	}
	want := []string{"spec.rules[0].filters[0].requestMirror.backendRef.name", "spec.rules[0].backendRefs[1].filters[0].requestMirror.backendRef.name"}
	if !slices.Equal(fields, want) {
		t.Errorf("unresolved %q, want %q", fields, want)
	}
}
