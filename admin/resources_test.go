package admin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "sluice/admin/v1"
	"sluice/store"
)

// syncFiles declares a text as --resources does.
func (n *testNode) syncFiles(t *testing.T, text string) {
	t.Helper()
	set, faults := store.Parse("routes.yaml", []byte(text))
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	if _, err := n.store.SyncFiles(t.Context(), set, store.Author{Actor: "files", Via: "file"}); err != nil {
		t.Fatal(err)
	}
}

func actions(changes []*adminv1.Change) []string {
	var list []string
	for _, c := range changes {
		list = append(list, c.GetAction()+" "+c.GetRef().GetKind()+" "+c.GetRef().GetName())
	}
	slices.Sort(list)
	return list
}

func wantActions(t *testing.T, what string, changes []*adminv1.Change, want ...string) {
	t.Helper()
	if got := actions(changes); !slices.Equal(got, want) {
		t.Errorf("%s: changes %v, want %v", what, got, want)
	}
}

func TestApplyDeclaresAllOrNothing(t *testing.T) {
	n := startNode(t)
	resp := n.apply(t, cart)
	wantActions(t, "first", resp.GetChanges(), "create Backend cart-v1", "create Backend cart-v2", "create GRPCRoute cart")
	if resp.GetSequence() != 3 || len(resp.GetWarnings()) > 0 {
		t.Errorf("sequence %d, warnings %v", resp.GetSequence(), resp.GetWarnings())
	}
	if by := resp.GetChanges()[0]; !strings.HasPrefix(by.GetActor(), "local ") || by.GetAddress() != "socket" {
		t.Errorf("the author is %q from %q", by.GetActor(), by.GetAddress())
	}
	again := n.apply(t, cart)
	if len(again.GetChanges()) > 0 || len(again.GetUnchanged()) != 3 || again.GetSequence() != 3 {
		t.Errorf("the same again: %v", again)
	}

	lost := strings.Replace(cart, "name: cart-v2, weight", "name: cart-v3, weight", 1)
	more := strings.Replace(strings.Split(cartBackends, "---")[0], "cart-v1", "cart-v4", 1) + "---\n" + lost
	_, err := n.resources.Apply(t.Context(), connect.NewRequest(&adminv1.ApplyRequest{Text: more}))
	wantCode(t, "a reference to nothing", err, connect.CodeInvalidArgument, "cart-v3")
	if got := n.store.Snapshot(); got.Seq() != 3 || got.Len("") != 3 {
		t.Errorf("after a refusal: sequence %d, %d objects", got.Seq(), got.Len(""))
	}
	for name, text := range map[string]string{"nothing": "", "a comment": "# nothing\n", "no YAML": "a: [", "an alias bomb": bomb()} {
		_, err := n.resources.Apply(t.Context(), connect.NewRequest(&adminv1.ApplyRequest{Text: text}))
		wantCode(t, name, err, connect.CodeInvalidArgument, "")
	}
	for name, reason := range map[string]string{"a long reason": strings.Repeat("x", 1001), "a reason of two lines": "a\nb", "an escape": "\x1b[31m", "NUL": "\x00"} {
		_, err = n.resources.Apply(t.Context(), connect.NewRequest(&adminv1.ApplyRequest{Text: cart, Reason: reason}))
		wantCode(t, name, err, connect.CodeInvalidArgument, "reason")
	}
}

// bomb is a text of a few hundred bytes that would be gigabytes written out.
func bomb() string {
	text := "a: &a [x, x, x, x, x, x, x, x, x]\n"
	for c := 'b'; c < 'k'; c++ {
		text += fmt.Sprintf("%c: &%c [*%c, *%c, *%c, *%c, *%c, *%c, *%c, *%c]\n", c, c, c-1, c-1, c-1, c-1, c-1, c-1, c-1, c-1)
	}
	return text
}

func TestApplyOfADryRunChangesNothing(t *testing.T) {
	n := startNode(t)
	resp, err := n.resources.Apply(t.Context(), connect.NewRequest(&adminv1.ApplyRequest{Text: cart, DryRun: true}))
	if err != nil {
		t.Fatal(err)
	}
	if len(resp.Msg.GetChanges()) != 3 || n.store.Snapshot().Len("") != 0 {
		t.Errorf("%d changes told, %d objects made", len(resp.Msg.GetChanges()), n.store.Snapshot().Len(""))
	}
}

// What Get answers can be edited and applied, unless somebody was faster.
func TestApplyOfWhatGetAnsweredGuardsItsRevision(t *testing.T) {
	n := startNode(t)
	n.apply(t, cart)
	first := n.get(t, "GRPCRoute", "cart").GetObject()
	edited := strings.Replace(first.GetManifest(), `"weight":90`, `"weight":80`, 1)
	if edited == first.GetManifest() || !strings.Contains(edited, first.GetRevision()) {
		t.Fatalf("the manifest is %s", first.GetManifest())
	}
	wantActions(t, "edited", n.apply(t, edited).GetChanges(), "update GRPCRoute cart")

	_, err := n.resources.Apply(t.Context(), connect.NewRequest(&adminv1.ApplyRequest{Text: strings.Replace(edited, `"weight":80`, `"weight":70`, 1)}))
	wantCode(t, "an old revision", err, connect.CodeAborted, first.GetRevision())
	conflict := detail[*adminv1.Conflict](t, err)
	if conflict.GetExpected() != first.GetRevision() || !strings.Contains(conflict.GetCurrent().GetManifest(), `"weight":80`) {
		t.Errorf("conflict %v", conflict)
	}

	_, err = n.resources.Delete(t.Context(), connect.NewRequest(&adminv1.DeleteRequest{Ref: ref("GRPCRoute", "cart"), IfRevision: first.GetRevision()}))
	wantCode(t, "a delete of an old revision", err, connect.CodeAborted, first.GetRevision())
}

func TestDiffTellsWithoutChanging(t *testing.T) {
	n := startNode(t)
	n.syncFiles(t, cart)
	seq := n.store.Snapshot().Seq()
	text := strings.Replace(cart, "weight: 90", "weight: 50", 1)
	resp, err := n.resources.Diff(t.Context(), connect.NewRequest(&adminv1.DiffRequest{Text: text}))
	if err != nil {
		t.Fatal(err)
	}
	wantActions(t, "diff", resp.Msg.GetChanges(), "update GRPCRoute cart")
	c := resp.Msg.GetChanges()[0]
	if !strings.Contains(c.GetBefore().GetManifest(), `"weight":90`) || !strings.Contains(c.GetAfter().GetManifest(), `"weight":50`) {
		t.Errorf("before %s, after %s", c.GetBefore().GetManifest(), c.GetAfter().GetManifest())
	}
	if len(resp.Msg.GetUnchanged()) != 2 || len(resp.Msg.GetWarnings()) != 1 || !strings.Contains(resp.Msg.GetWarnings()[0], "routes.yaml:1") {
		t.Errorf("unchanged %v, warnings %v", resp.Msg.GetUnchanged(), resp.Msg.GetWarnings())
	}
	if n.store.Snapshot().Seq() != seq {
		t.Error("diff has changed something")
	}
	if got := n.get(t, "Backend", "cart-v1").GetObject().GetOwner().GetKind(); got != adminv1.Owner_KIND_FILE {
		t.Errorf("owner %v", got)
	}
}

// What a file declares is read-only until it is adopted; what operators do beside it
// is not.
func TestFilesOwnWhatTheyDeclare(t *testing.T) {
	n := startNode(t)
	n.syncFiles(t, cart)
	changed := strings.Replace(cartRoute, "weight: 90", "weight: 50", 1)
	_, err := n.resources.Apply(t.Context(), connect.NewRequest(&adminv1.ApplyRequest{Text: changed}))
	wantCode(t, "apply", err, connect.CodeFailedPrecondition, "routes.yaml:1")
	_, err = n.resources.Delete(t.Context(), connect.NewRequest(&adminv1.DeleteRequest{Ref: ref("GRPCRoute", "cart")}))
	wantCode(t, "delete", err, connect.CodeFailedPrecondition, "routes.yaml:1")

	if _, err := n.resources.Disable(t.Context(), connect.NewRequest(&adminv1.DisableRequest{Route: &adminv1.Ref{Name: "cart"}})); err != nil {
		t.Errorf("disable: %v", err)
	}
	n.syncFiles(t, changed+"---\n"+cartBackends)
	if o := n.get(t, "GRPCRoute", "cart").GetObject(); !o.GetState().GetDisabled() || !strings.Contains(o.GetManifest(), `"weight":50`) {
		t.Errorf("after a reload: %v", o)
	}

	resp, err := n.resources.Adopt(t.Context(), connect.NewRequest(&adminv1.AdoptRequest{Ref: ref("GRPCRoute", "cart"), Reason: "ours now"}))
	if err != nil {
		t.Fatal(err)
	}
	wantActions(t, "adopt", resp.Msg.GetChanges(), "adopt GRPCRoute cart")
	if got := resp.Msg.GetChanges()[0].GetReason(); got != "ours now" {
		t.Errorf("reason %q", got)
	}
	wantActions(t, "apply", n.apply(t, cartRoute).GetChanges(), "update GRPCRoute cart")
	resp, err = n.resources.Adopt(t.Context(), connect.NewRequest(&adminv1.AdoptRequest{Ref: ref("GRPCRoute", "cart"), Undo: true}))
	if err != nil {
		t.Fatal(err)
	}
	wantActions(t, "release", resp.Msg.GetChanges(), "release GRPCRoute cart")
	if _, err := n.resources.Apply(t.Context(), connect.NewRequest(&adminv1.ApplyRequest{Text: strings.Replace(cartRoute, "90", "10", 1), TakeOver: true})); err != nil {
		t.Errorf("take over: %v", err)
	}
}

func TestGetTellsConditions(t *testing.T) {
	disable := func(n *testNode, t *testing.T) {
		if _, err := n.resources.Disable(t.Context(), connect.NewRequest(&adminv1.DisableRequest{Route: &adminv1.Ref{Name: "cart"}})); err != nil {
			t.Fatal(err)
		}
	}
	lose := func(n *testNode, t *testing.T) {
		if _, err := n.resources.Delete(t.Context(), connect.NewRequest(&adminv1.DeleteRequest{Ref: ref("Backend", "cart-v2"), AllowUnresolved: true})); err != nil {
			t.Fatal(err)
		}
	}
	drain := func(endpoints ...string) func(*testNode, *testing.T) {
		return func(n *testNode, t *testing.T) {
			if _, err := n.resources.Drain(t.Context(), connect.NewRequest(&adminv1.DrainRequest{Backend: &adminv1.Ref{Name: "cart-v1"}, Endpoints: endpoints})); err != nil {
				t.Fatal(err)
			}
		}
	}
	set := func(change func(*fakeGateway)) func(*testNode, *testing.T) {
		return func(n *testNode, _ *testing.T) {
			n.gateway.mu.Lock()
			defer n.gateway.mu.Unlock()
			change(n.gateway)
		}
	}
	policy := func(target string) func(*testNode, *testing.T) {
		return func(n *testNode, t *testing.T) {
			text := "apiVersion: sluice.dev/v1alpha1\nkind: RPCPolicy\nmetadata: {name: p}\nspec:\n  targetRefs: [{group: gateway.networking.k8s.io, kind: GRPCRoute, " + target + "}]\n  split: {whenNoEndpoints: SpillOver}\n"
			if _, err := n.resources.Apply(t.Context(), connect.NewRequest(&adminv1.ApplyRequest{Text: text, AllowUnresolved: true})); err != nil {
				t.Fatal(err)
			}
		}
	}
	declare := func(text string) func(*testNode, *testing.T) {
		return func(n *testNode, t *testing.T) {
			if _, err := n.resources.Apply(t.Context(), connect.NewRequest(&adminv1.ApplyRequest{Text: text, AllowUnresolved: true})); err != nil {
				t.Fatal(err)
			}
		}
	}
	const mirrored = "filters: [{type: RequestMirror, requestMirror: {backendRef: {name: shadow}}}], "
	for _, tc := range []struct {
		name, kind, object string
		change             func(*testNode, *testing.T)
		want               string // type reason of those that are not true
		wantMessage        string
	}{
		{"all is well", "GRPCRoute", "cart", nil, "", ""},
		{"disabled", "GRPCRoute", "cart", disable, "Programmed Disabled", "enable"},
		{"a backend is gone", "GRPCRoute", "cart", lose, "ResolvedRefs BackendNotFound", "Backend default/cart-v2"},
		{"not in force yet", "GRPCRoute", "cart", set(func(g *fakeGateway) { g.behind = 3 }), "Programmed Pending", ""},
		{"another is not in force yet", "Backend", "cart-v1", set(func(g *fakeGateway) { g.behind = 1 }), "", ""},
		{"cannot be in force", "Backend", "cart-v1", set(func(g *fakeGateway) {
			g.problems = map[store.ID]error{{Kind: "Backend", Namespace: "default", Name: "cart-v1"}: errors.New("no such file")}
		}), "Programmed Invalid", "no such file"},
		{"drained", "Backend", "cart-v1", drain(), "", "undrain"},
		{"partly drained", "Backend", "cart-v1", drain("127.0.0.1:50053"), "", "127.0.0.1:50053"},
		{"a policy", "RPCPolicy", "p", policy("name: cart, sectionName: all"), "", ""},
		{"a policy of no route", "RPCPolicy", "p", policy("name: nothing"), "ResolvedRefs TargetNotFound", "GRPCRoute default/nothing"},
		{"an HTTPRoute", "HTTPRoute", "web", declare(webRoute("web", "")), "", ""},
		{"a mirror of an HTTPRoute", "HTTPRoute", "web", declare(webRoute("web", mirrored)), "ResolvedRefs BackendNotFound", "Backend default/shadow"},
		{"what is not in force", "HTTPRoute", "web", declare(webRoute("web", mirrored)), "ResolvedRefs BackendNotFound", "not in force in this version: filter RequestMirror"},
		{"a schema", "Schema", "s", declare(schemaOf("cart-v1")), "", ""},
		{"a schema of no backend", "Schema", "s", declare(schemaOf("cart-v9")), "ResolvedRefs BackendNotFound", "there is no Backend default/cart-v9: the schema does nothing for it"},
		{"a policy of no rule", "RPCPolicy", "p", policy("name: cart, sectionName: none"), "ResolvedRefs TargetNotFound", "rule none"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := startNode(t)
			n.apply(t, cartRouteLast)
			if tc.change != nil {
				tc.change(n, t)
			}
			got := n.get(t, tc.kind, tc.object).GetObject()
			var untrue, messages []string
			for _, c := range got.GetConditions() {
				messages = append(messages, c.GetMessage())
				if !c.GetStatus() {
					untrue = append(untrue, c.GetType()+" "+c.GetReason())
				}
			}
			if s := strings.Join(untrue, ", "); s != tc.want || len(got.GetConditions()) != 3 {
				t.Errorf("not true: %q of %d, want %q", s, len(messages), tc.want)
			}
			if s := strings.Join(messages, " "); !strings.Contains(s, tc.wantMessage) {
				t.Errorf("messages %q, want %q in them", s, tc.wantMessage)
			}
			all, err := n.resources.List(t.Context(), connect.NewRequest(&adminv1.ListRequest{Kind: tc.kind}))
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range all.Msg.GetObjects() {
				if o.GetRef().GetName() == tc.object && !proto.Equal(o, got) {
					t.Errorf("List tells %v, Get %v", o, got)
				}
			}
		})
	}
}

// webRoute is an HTTPRoute to the backends of cart, with more in its rule.
func webRoute(name, more string) string {
	return "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: " + name + "}\n" +
		"spec: {rules: [{name: all, " + more + "backendRefs: [{name: cart-v1, weight: 90}, {name: cart-v2, weight: 10}]}]}\n"
}

// schemaOf is a Schema for one backend.
func schemaOf(backend string) string {
	return "apiVersion: sluice.dev/v1alpha1\nkind: Schema\nmetadata: {name: s}\n" +
		"spec: {backendRefs: [{name: " + backend + "}], descriptorSet: ChkKB2EucHJvdG8SAWEiAwoBTWIGcHJvdG8z}\n"
}

func TestSplitFindsTheRouteOfThatName(t *testing.T) {
	n := startNode(t)
	n.apply(t, cart+"---\n"+webRoute("web", "")+"---\n"+webRoute("cart", ""))
	n.gateway.observed = map[string][]ObservedRule{"HTTPRoute default/web": {{Rule: "all", Shares: []ObservedShare{{Backend: "default/cart-v1", Weight: 1}}}}}
	split := func(kind, name string) (*adminv1.WriteResponse, error) {
		resp, err := n.resources.Split(t.Context(), connect.NewRequest(&adminv1.SplitRequest{
			Route: &adminv1.Ref{Kind: kind, Name: name}, Rule: "all",
			Shares: []*adminv1.Share{{Backend: "cart-v1", Weight: 1}, {Backend: "cart-v2", Weight: 1}},
		}))
		if err != nil {
			return nil, err
		}
		return resp.Msg, nil
	}
	for _, tc := range []struct{ kind, name, want string }{
		{"", "web", "split HTTPRoute web"}, {"HTTPRoute", "cart", "split HTTPRoute cart"}, {"GRPCRoute", "cart", "split GRPCRoute cart"},
	} {
		resp, err := split(tc.kind, tc.name)
		if err != nil {
			t.Fatalf("%s %s: %v", tc.kind, tc.name, err)
		}
		wantActions(t, tc.name, resp.GetChanges(), tc.want)
	}
	_, err := split("", "cart")
	wantCode(t, "two of that name", err, connect.CodeInvalidArgument, "there are a GRPCRoute and an HTTPRoute default/cart: say which of them")
	_, err = split("", "none")
	wantCode(t, "none of that name", err, connect.CodeNotFound, "GRPCRoute default/none")
	got := n.get(t, "HTTPRoute", "web").GetObserved()
	if len(got) != 1 || !got[0].GetOverridden() || got[0].GetShares()[0].GetDeclaredWeight() != 90 {
		t.Errorf("observed %v", got)
	}
}

// cartRouteLast is cart with the route changed last.
const cartRouteLast = cartBackends + "---\n" + cartRoute

func TestListReadsWhatIsAskedFor(t *testing.T) {
	n := startNode(t)
	n.apply(t, cart+"---\n"+strings.Replace(strings.Split(cartBackends, "---")[0], "{name: cart-v1}", "{name: cart-v1, namespace: other}", 1))
	for _, tc := range []struct {
		kind, namespace string
		want            int
	}{
		{"", "", 4}, {"Backend", "", 3}, {"Backend", "other", 1}, {"", "default", 3}, {"RPCPolicy", "", 0}, {"", "nowhere", 0},
	} {
		resp, err := n.resources.List(t.Context(), connect.NewRequest(&adminv1.ListRequest{Kind: tc.kind, Namespace: tc.namespace}))
		if err != nil {
			t.Fatal(err)
		}
		if len(resp.Msg.GetObjects()) != tc.want || resp.Msg.GetSequence() != n.store.Snapshot().Seq() {
			t.Errorf("%q in %q: %d objects at %d, want %d", tc.kind, tc.namespace, len(resp.Msg.GetObjects()), resp.Msg.GetSequence(), tc.want)
		}
	}
	_, err := n.resources.List(t.Context(), connect.NewRequest(&adminv1.ListRequest{Kind: "Pod"}))
	wantCode(t, "a kind that there is not", err, connect.CodeInvalidArgument, "GRPCRoute")
	_, err = n.resources.Get(t.Context(), connect.NewRequest(&adminv1.GetRequest{Ref: ref("GRPCRoute", "nothing")}))
	wantCode(t, "an object that there is not", err, connect.CodeNotFound, "GRPCRoute default/nothing")
	_, err = n.resources.Get(t.Context(), connect.NewRequest(&adminv1.GetRequest{}))
	wantCode(t, "no object", err, connect.CodeInvalidArgument, "ref.kind")
}

func (n *testNode) split(t *testing.T, req *adminv1.SplitRequest) (*adminv1.WriteResponse, error) {
	t.Helper()
	req.Route = &adminv1.Ref{Name: "cart"}
	resp, err := n.resources.Split(t.Context(), connect.NewRequest(req))
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}

func TestSplitSharesOutARule(t *testing.T) {
	n := startNode(t)
	n.apply(t, cart)
	n.gateway.observed = map[string][]ObservedRule{"GRPCRoute default/cart": {{Rule: "all", Shares: []ObservedShare{
		{Backend: "default/cart-v1", Weight: 70, RPCs: 7, Endpoints: 2}, {Backend: "default/cart-v2", Weight: 30, RPCs: 3, Problem: "no endpoint"},
	}}}}
	resp, err := n.split(t, &adminv1.SplitRequest{
		Shares: []*adminv1.Share{{Backend: "cart-v1", Weight: 70}, {Backend: "cart-v2", Weight: 30}},
		Pins:   []*adminv1.Pin{{Header: "X-Tester", Value: "yes", Backend: "cart-v2"}}, Sticky: proto.String("user"),
	})
	if err != nil {
		t.Fatal(err)
	}
	wantActions(t, "split", resp.GetChanges(), "split GRPCRoute cart")
	got := n.get(t, "GRPCRoute", "cart")
	s := got.GetObject().GetState().GetSplits()
	if len(s) != 1 || s[0].GetRule() != "all" || len(s[0].GetShares()) != 2 || s[0].GetShares()[0].GetWeight() != 70 ||
		len(s[0].GetPins()) != 1 || s[0].GetPins()[0].GetHeader() != "x-tester" || s[0].GetSticky() != "user" {
		t.Errorf("state %v", s)
	}
	if !strings.Contains(got.GetObject().GetManifest(), `"weight":90`) {
		t.Error("the split has changed the declaration")
	}
	o := got.GetObserved()
	if len(o) != 1 || !o[0].GetOverridden() || o[0].GetShares()[0].GetDeclaredWeight() != 90 || o[0].GetShares()[0].GetWeight() != 70 ||
		o[0].GetShares()[0].GetRpcs() != 7 || o[0].GetShares()[1].GetProblem() != "no endpoint" {
		t.Errorf("observed %v", o)
	}

	for name, bad := range map[string]*adminv1.SplitRequest{
		"a backend of another rule": {Shares: []*adminv1.Share{{Backend: "cart-v3", Weight: 1}}},
		"a rule that there is not":  {Rule: "none", Shares: []*adminv1.Share{{Backend: "cart-v1", Weight: 1}}},
	} {
		_, err := n.split(t, bad)
		wantCode(t, name, err, connect.CodeInvalidArgument, "")
	}
	_, err = n.resources.Split(t.Context(), connect.NewRequest(&adminv1.SplitRequest{Route: ref("Backend", "cart-v1")}))
	wantCode(t, "a split of a backend", err, connect.CodeInvalidArgument, "route.kind")

	if _, err := n.split(t, &adminv1.SplitRequest{Reset_: true}); err != nil {
		t.Fatal(err)
	}
	if s := n.get(t, "GRPCRoute", "cart").GetObject().GetState().GetSplits(); len(s) > 0 {
		t.Errorf("after a reset: %v", s)
	}
}

func TestDrainTakesEndpointsOut(t *testing.T) {
	n := startNode(t)
	n.apply(t, cart)
	drain := func(undo bool, endpoints ...string) error {
		_, err := n.resources.Drain(t.Context(), connect.NewRequest(&adminv1.DrainRequest{
			Backend: ref("Backend", "cart-v1"), Endpoints: endpoints, Undo: undo,
		}))
		return err
	}
	want := func(what string, drained bool, endpoints ...string) {
		t.Helper()
		got := n.get(t, "Backend", "cart-v1").GetObject().GetState()
		if got.GetDrained() != drained || !slices.Equal(got.GetDrainedEndpoints(), endpoints) {
			t.Errorf("%s: %v", what, got)
		}
	}
	for _, step := range []struct {
		what      string
		undo      bool
		endpoints []string
		drained   bool
		want      []string
	}{
		{"one endpoint", false, []string{"127.0.0.1:50053"}, false, []string{"127.0.0.1:50053"}},
		{"the same again", false, []string{"127.0.0.1:50053"}, false, []string{"127.0.0.1:50053"}},
		{"the other", false, []string{"127.0.0.1:50051"}, false, []string{"127.0.0.1:50051", "127.0.0.1:50053"}},
		{"one back", true, []string{"127.0.0.1:50051"}, false, []string{"127.0.0.1:50053"}},
		{"all", false, nil, true, []string{"127.0.0.1:50053"}},
		{"all back", true, nil, false, nil},
	} {
		if err := drain(step.undo, step.endpoints...); err != nil {
			t.Fatalf("%s: %v", step.what, err)
		}
		want(step.what, step.drained, step.want...)
	}
	wantCode(t, "an endpoint that there is not", drain(false, "127.0.0.1:1"), connect.CodeInvalidArgument, "endpoints[0]")
	resp, err := n.resources.History(t.Context(), connect.NewRequest(&adminv1.HistoryRequest{Ref: ref("Backend", "cart-v1")}))
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, c := range resp.Msg.GetChanges() {
		list = append(list, c.GetAction())
	}
	if got := strings.Join(list, " "); got != "undrain drain undrain drain drain create" {
		t.Errorf("history %q", got)
	}
}

func TestHistoryGoesOnFromASequence(t *testing.T) {
	n := startNode(t)
	n.apply(t, cart)
	for weight := range 5 {
		n.apply(t, strings.Replace(cartRoute, "90", fmt.Sprint(weight+1), 1))
	}
	var seqs []uint64
	before := uint64(0)
	for {
		resp, err := n.resources.History(t.Context(), connect.NewRequest(&adminv1.HistoryRequest{Limit: 3, Before: before}))
		if err != nil {
			t.Fatal(err)
		}
		if len(resp.Msg.GetChanges()) == 0 {
			break
		}
		for _, c := range resp.Msg.GetChanges() {
			seqs = append(seqs, c.GetSequence())
			before = c.GetSequence()
		}
	}
	if fmt.Sprint(seqs) != "[8 7 6 5 4 3 2 1]" {
		t.Errorf("sequences %v", seqs)
	}
}

func TestRollbackOfOneObject(t *testing.T) {
	n := startNode(t)
	n.apply(t, cart)
	first := n.get(t, "GRPCRoute", "cart").GetObject()
	for _, weight := range []string{"80", "70"} {
		n.apply(t, strings.Replace(cartRoute, "90", weight, 1))
	}
	rollback := func(req *adminv1.RollbackRequest) (*adminv1.WriteResponse, error) {
		resp, err := n.resources.Rollback(t.Context(), connect.NewRequest(req))
		if err != nil {
			return nil, err
		}
		return resp.Msg, nil
	}
	want := func(what, part string) {
		t.Helper()
		if m := n.get(t, "GRPCRoute", "cart").GetObject().GetManifest(); !strings.Contains(m, part) {
			t.Errorf("%s: %s, want %s in it", what, m, part)
		}
	}
	if _, err := rollback(&adminv1.RollbackRequest{Ref: ref("GRPCRoute", "cart"), DryRun: true}); err != nil {
		t.Fatal(err)
	}
	want("a dry run", `"weight":70`)
	resp, err := rollback(&adminv1.RollbackRequest{Ref: ref("GRPCRoute", "cart"), Reason: "errors"})
	if err != nil {
		t.Fatal(err)
	}
	wantActions(t, "to the one before", resp.GetChanges(), "rollback GRPCRoute cart")
	want("to the one before", `"weight":80`)
	if _, err := rollback(&adminv1.RollbackRequest{Ref: ref("GRPCRoute", "cart"), Revision: first.GetRevision()}); err != nil {
		t.Fatal(err)
	}
	want("to the first", `"weight":90`)

	_, err = rollback(&adminv1.RollbackRequest{Ref: ref("GRPCRoute", "cart"), Revision: "1.0@nowhere"})
	wantCode(t, "a revision that there is not", err, connect.CodeNotFound, "")
	_, err = rollback(&adminv1.RollbackRequest{Ref: ref("Backend", "cart-v1")})
	wantCode(t, "before the first", err, connect.CodeFailedPrecondition, "name the revision")
	_, err = rollback(&adminv1.RollbackRequest{})
	wantCode(t, "of nothing", err, connect.CodeInvalidArgument, "ref")
	_, err = rollback(&adminv1.RollbackRequest{Ref: ref("GRPCRoute", "cart"), To: timestamppb.Now()})
	wantCode(t, "of one and all", err, connect.CodeInvalidArgument, "not both")

	if _, err := n.resources.Delete(t.Context(), connect.NewRequest(&adminv1.DeleteRequest{Ref: ref("GRPCRoute", "cart")})); err != nil {
		t.Fatal(err)
	}
	if _, err := rollback(&adminv1.RollbackRequest{Ref: ref("GRPCRoute", "cart")}); err != nil {
		t.Fatal(err)
	}
	want("of a delete", `"weight":90`)
}

// A rollback of everything to a time leaves alone what files declare, and says so.
func TestRollbackOfEverythingToATime(t *testing.T) {
	n := startNode(t)
	n.syncFiles(t, cartBackends)
	n.apply(t, cartRoute)
	digest := n.store.Snapshot().Digest()
	then := afterNow(t)

	n.apply(t, strings.Replace(cartRoute, "90", "50", 1))
	n.apply(t, strings.Replace(strings.Split(cartBackends, "---")[0], "cart-v1", "cart-v3", 1))
	if _, err := n.split(t, &adminv1.SplitRequest{Shares: []*adminv1.Share{{Backend: "cart-v1", Weight: 1}, {Backend: "cart-v2"}}}); err != nil {
		t.Fatal(err)
	}
	rollback := func() *adminv1.WriteResponse {
		resp, err := n.resources.Rollback(t.Context(), connect.NewRequest(&adminv1.RollbackRequest{To: timestamppb.New(then)}))
		if err != nil {
			t.Fatal(err)
		}
		return resp.Msg
	}
	wantActions(t, "rollback", rollback().GetChanges(), "rollback Backend cart-v3", "rollback GRPCRoute cart")
	if got := n.store.Snapshot().Digest(); got != digest {
		t.Error("not everything is as it was")
	}

	n.syncFiles(t, strings.Replace(cartBackends, "50052", "50062", 1))
	if _, err := n.resources.Drain(t.Context(), connect.NewRequest(&adminv1.DrainRequest{Backend: ref("Backend", "cart-v2")})); err != nil {
		t.Fatal(err)
	}
	resp := rollback()
	o := n.get(t, "Backend", "cart-v2").GetObject()
	if !strings.Contains(o.GetManifest(), "50062") || o.GetState().GetDrained() {
		t.Errorf("what a file declares: %v", o)
	}
	if len(resp.GetWarnings()) != 1 || !strings.Contains(resp.GetWarnings()[0], "cart-v2") || !strings.Contains(resp.GetWarnings()[0], "routes.yaml") {
		t.Errorf("warnings %v", resp.GetWarnings())
	}

	_, err := n.resources.Rollback(t.Context(), connect.NewRequest(&adminv1.RollbackRequest{To: timestamppb.New(time.Unix(0, 0))}))
	wantCode(t, "before the beginning", err, connect.CodeOutOfRange, "")
}

// Of what a file declares only the state goes back.
func TestRollbackOfWhatAFileDeclares(t *testing.T) {
	n := startNode(t)
	n.syncFiles(t, cartBackends)
	n.syncFiles(t, strings.Replace(cartBackends, "50052", "50062", 1))
	if _, err := n.resources.Drain(t.Context(), connect.NewRequest(&adminv1.DrainRequest{Backend: ref("Backend", "cart-v2")})); err != nil {
		t.Fatal(err)
	}
	history, err := n.store.History(store.ID{Kind: "Backend", Name: "cart-v2"}, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name     string
		revision string
		warnings int
	}{
		{"to the one before, of the same content", "", 0},
		{"back to the drain", history[0].After.Revision.String(), 0},
		{"to the first, of another content", history[2].After.Revision.String(), 1},
	} {
		resp, err := n.resources.Rollback(t.Context(), connect.NewRequest(&adminv1.RollbackRequest{Ref: ref("Backend", "cart-v2"), Revision: tc.revision}))
		if err != nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		o := n.get(t, "Backend", "cart-v2").GetObject()
		if drained := tc.name == "back to the drain"; o.GetState().GetDrained() != drained || !strings.Contains(o.GetManifest(), "50062") ||
			o.GetOwner().GetKind() != adminv1.Owner_KIND_FILE || len(resp.Msg.GetWarnings()) != tc.warnings {
			t.Errorf("%s: %v, warnings %v", tc.name, o, resp.Msg.GetWarnings())
		}
	}
}

// afterNow is a time after everything that has been changed, and before what will be:
// changes have their time to the millisecond.
func afterNow(t *testing.T) time.Time {
	t.Helper()
	now := time.Now()
	for time.Since(now) < 2*time.Millisecond {
		<-time.After(time.Millisecond)
	}
	return now.Add(time.Millisecond)
}

func TestExplainAsksTheGateway(t *testing.T) {
	n := startNode(t)
	n.apply(t, cart)
	resp, err := n.resources.Explain(t.Context(), connect.NewRequest(&adminv1.ExplainRequest{
		Authority: "shop.example.com", Path: "shop.v1.Cart/Get", Headers: []*adminv1.Header{{Name: "X-Tester", Value: "Yes"}},
	}))
	if err != nil {
		t.Fatal(err)
	}
	m := resp.Msg
	if m.GetVerdict() == "" || m.GetChosen() != "default/cart-v1" || m.GetChosenWhy() == "" || len(m.GetCandidates()) != 1 ||
		!m.GetCandidates()[0].GetWins() || m.GetShares()[0].GetRpcs() != 7 || m.GetShares()[0].GetDeclaredWeight() != 90 {
		t.Errorf("answered %v", m)
	}
	if got := fmt.Sprint(n.gateway.asked); got != "[shop.example.com /shop.v1.Cart/Get x-tester=Yes]" {
		t.Errorf("asked %s", got)
	}
	for _, path := range []string{"", "/", "/a", "/a/", "//b", "/a/b/c"} {
		_, err := n.resources.Explain(t.Context(), connect.NewRequest(&adminv1.ExplainRequest{Path: path}))
		wantCode(t, path, err, connect.CodeInvalidArgument, "path")
	}
}

// A write that cannot be in force stands, and its answer says so.
func TestApplyWarnsOfWhatIsNotInForce(t *testing.T) {
	n := startNode(t)
	n.gateway.mu.Lock()
	n.gateway.problems = map[store.ID]error{{Kind: "Backend", Namespace: "default", Name: "cart-v1"}: errors.New("ca.pem: no such file")}
	n.gateway.mu.Unlock()
	if w := n.apply(t, cart).GetWarnings(); len(w) != 1 || !strings.Contains(w[0], "ca.pem") {
		t.Errorf("warnings %v", w)
	}
	n.gateway.mu.Lock()
	n.gateway.problems, n.gateway.behind = nil, 1
	n.gateway.mu.Unlock()
	begun := time.Now()
	if w := n.apply(t, strings.Replace(cartRoute, "90", "80", 1)).GetWarnings(); len(w) != 1 || !strings.Contains(w[0], "not in force after 2s") {
		t.Errorf("warnings %v", w)
	}
	if took := time.Since(begun); took < programTime || took > programTime+5*time.Second {
		t.Errorf("answered after %v, want %v", took, programTime)
	}
}

// A write of more than fits is told without what was before and after.
func TestApplyAnswersWithinBounds(t *testing.T) {
	n := startNode(t)
	var text strings.Builder
	for i := range 200 {
		fmt.Fprintf(&text, "---\napiVersion: sluice.dev/v1alpha1\nkind: Backend\nmetadata: {name: b%d, annotations: {note: %s}}\nspec: {endpoints: [{address: \"127.0.0.1:1\"}]}\n", i, strings.Repeat("x", 32<<10))
	}
	resp := n.apply(t, text.String())
	if size := proto.Size(resp); len(resp.GetChanges()) != 200 || size > 4<<20 {
		t.Errorf("%d changes in %d bytes", len(resp.GetChanges()), size)
	}
	if first, last := resp.GetChanges()[0], resp.GetChanges()[199]; first.GetAfter() == nil || last.GetAfter() != nil || last.GetRevision() == "" || len(resp.GetWarnings()) != 1 {
		t.Errorf("first %v, last %v, warnings %v", first.GetRef(), last.GetRef(), resp.GetWarnings())
	}
}

// A client that has gone changes nothing any more.
func TestApplyOfAClientThatHasGone(t *testing.T) {
	n := startNode(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := n.resources.Apply(ctx, connect.NewRequest(&adminv1.ApplyRequest{Text: cart}))
	wantCode(t, "gone", err, connect.CodeCanceled, "")
}
