package admin

import (
	"strings"
	"testing"

	"connectrpc.com/connect"

	adminv1 "sluice/admin/v1"
	"sluice/store"
)

// elsewhere is a store that has not heard of the node's.
func elsewhere(t *testing.T) *store.Store {
	t.Helper()
	st, err := store.Open(store.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return st
}

// declareAt declares a text at a store by hand of an actor.
func declareAt(t *testing.T, st *store.Store, actor, text string) {
	t.Helper()
	set, faults := store.Parse("text", []byte(text))
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	var ops []store.Op
	for _, r := range set.Resources() {
		ops = append(ops, store.Op{ID: store.ResourceID(r), Apply: r})
	}
	if _, err := st.Write(t.Context(), store.Txn{Author: store.Author{Actor: actor, Via: "cli", Reason: "elsewhere"}, Ops: ops}); err != nil {
		t.Fatal(err)
	}
}

// merge has the node take in all that a store has, the deleted included.
func (n *testNode) merge(t *testing.T, from *store.Store) {
	t.Helper()
	var taken []*store.Object
	for _, o := range append(from.Snapshot().All(""), from.Snapshot().Tombstones()...) {
		row, err := store.EncodeForeign(o)
		if err != nil {
			t.Fatal(err)
		}
		decoded, err := store.DecodeForeign(o.ID, row)
		if err != nil {
			t.Fatal(err)
		}
		taken = append(taken, decoded)
	}
	if result, err := n.store.Merge(t.Context(), taken); err != nil || len(result.Refused) > 0 {
		t.Fatalf("merge: %v, %v", result, err)
	}
}

func (n *testNode) conflicts(t *testing.T, of *adminv1.Ref) []*adminv1.Contested {
	t.Helper()
	resp, err := n.cluster.ListConflicts(t.Context(), connect.NewRequest(&adminv1.ListConflictsRequest{Ref: of}))
	if err != nil {
		t.Fatal(err)
	}
	return resp.Msg.GetConflicts()
}

// quarrel is a node whose cart-v2 and cart-v1 were declared elsewhere, too, at the same
// time. What it has itself is the earlier version of the two, and lost.
func quarrel(t *testing.T) *testNode {
	t.Helper()
	n := startNode(t)
	n.apply(t, cart)
	other := elsewhere(t)
	declareAt(t, other, "bob", strings.ReplaceAll(cartBackends, "127.0.0.1", "10.9.9.9"))
	n.merge(t, other)
	return n
}

func TestListConflictsHasBothSides(t *testing.T) {
	n := quarrel(t)
	all := n.conflicts(t, nil)
	if len(all) != 2 || all[0].GetHolds().GetObject().GetRef().GetName() != "cart-v1" || all[1].GetHolds().GetObject().GetRef().GetName() != "cart-v2" {
		t.Fatalf("conflicts %v", all)
	}
	holds, lost := all[0].GetHolds(), all[0].GetLost()[0]
	if len(all[0].GetLost()) != 1 || !strings.Contains(holds.GetObject().GetManifest(), "10.9.9.9:50051") || holds.GetObject().GetLastChange().GetActor() != "bob" ||
		holds.GetObject().GetLastChange().GetReason() != "elsewhere" || holds.GetNode() == n.store.Node() || holds.GetNode() == "" {
		t.Errorf("what holds is %v", holds)
	}
	if !strings.Contains(lost.GetObject().GetManifest(), "127.0.0.1:50051") || lost.GetNode() != n.store.Node() ||
		!strings.HasPrefix(lost.GetObject().GetLastChange().GetActor(), "local ") || lost.GetObject().GetLastChange().GetTime() == nil {
		t.Errorf("what was lost is %v", lost)
	}
	if one := n.conflicts(t, ref("Backend", "cart-v2")); len(one) != 1 || one[0].GetHolds().GetObject().GetRef().GetName() != "cart-v2" {
		t.Errorf("of one object: %v", one)
	}
	if lost := n.get(t, "Backend", "cart-v1").GetObject().GetLost(); lost != 1 {
		t.Errorf("the object has %d lost versions, want 1", lost)
	}
	if none := n.conflicts(t, ref("GRPCRoute", "cart")); len(none) != 0 {
		t.Errorf("of an object that nobody else changed: %v", none)
	}
	status, err := n.node.Status(t.Context(), connect.NewRequest(&adminv1.StatusRequest{}))
	if err != nil || status.Msg.GetConflicts() != 2 || status.Msg.GetCluster() != nil {
		t.Errorf("status %v, %v", status, err)
	}
}

// settle settles the conflict of a Backend.
func (n *testNode) settle(t *testing.T, name string, r *adminv1.SettleConflictRequest) (*adminv1.WriteResponse, error) {
	t.Helper()
	r.Ref = ref("Backend", name)
	resp, err := n.cluster.SettleConflict(t.Context(), connect.NewRequest(r))
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}

const (
	keepSide = adminv1.SettleConflictRequest_SIDE_KEEP
	takeSide = adminv1.SettleConflictRequest_SIDE_TAKE
)

func TestSettleConflictTakesOrKeeps(t *testing.T) {
	n := quarrel(t)
	lost := n.conflicts(t, ref("Backend", "cart-v1"))[0].GetLost()[0].GetObject().GetRevision()
	dry, err := n.settle(t, "cart-v1", &adminv1.SettleConflictRequest{Side: takeSide, Revision: lost, DryRun: true})
	if err != nil || len(dry.GetChanges()) != 1 || len(n.conflicts(t, nil)) != 2 {
		t.Fatalf("dry run: %v, %v", dry, err)
	}
	taken, err := n.settle(t, "cart-v1", &adminv1.SettleConflictRequest{Side: takeSide, Revision: lost, Reason: "ours was right"})
	if err != nil || len(taken.GetChanges()) != 1 {
		t.Fatalf("take: %v, %v", taken, err)
	}
	if c := taken.GetChanges()[0]; c.GetAction() != "settle" || c.GetReason() != "ours was right" || !strings.Contains(c.GetAfter().GetManifest(), "127.0.0.1:50051") {
		t.Errorf("take did %v", c)
	}
	kept, err := n.settle(t, "cart-v2", &adminv1.SettleConflictRequest{Side: keepSide})
	if err != nil || len(kept.GetChanges()) != 1 {
		t.Fatalf("keep: %v, %v", kept, err)
	}
	if c := kept.GetChanges()[0]; c.GetAction() != "settle" || !strings.Contains(c.GetAfter().GetManifest(), "10.9.9.9:50052") {
		t.Errorf("keep did %v", c)
	}
	if left := n.conflicts(t, nil); len(left) != 0 {
		t.Errorf("left are %v", left)
	}
	_, err = n.settle(t, "cart-v2", &adminv1.SettleConflictRequest{Side: keepSide})
	wantCode(t, "settle once more", err, connect.CodeNotFound, "in no conflict")
}

// Any other edit settles a conflict, too.
func TestSettleConflictIsNotTheOnlyWay(t *testing.T) {
	n := quarrel(t)
	n.apply(t, cartBackends)
	if left := n.conflicts(t, nil); len(left) != 0 {
		t.Errorf("left are %v", left)
	}
}

func TestSettleConflictRefuses(t *testing.T) {
	n := quarrel(t)
	for name, test := range map[string]struct {
		request *adminv1.SettleConflictRequest
		code    connect.Code
		part    string
	}{
		"no side":         {&adminv1.SettleConflictRequest{}, connect.CodeInvalidArgument, "SIDE_TAKE"},
		"a revision lost": {&adminv1.SettleConflictRequest{Side: takeSide, Revision: "1.0@aaaaaaaa\n"}, connect.CodeNotFound, "no lost version"},
		"another holds":   {&adminv1.SettleConflictRequest{Side: keepSide, IfRevision: "1.0@aaaaaaaa"}, connect.CodeAborted, "1.0@aaaaaaaa"},
		"a wait":          {&adminv1.SettleConflictRequest{Side: keepSide, Wait: 9}, connect.CodeInvalidArgument, "WAIT_ALL"},
		"two lines":       {&adminv1.SettleConflictRequest{Side: keepSide, Reason: "a\nb"}, connect.CodeInvalidArgument, "one line"},
	} {
		_, err := n.settle(t, "cart-v1", test.request)
		wantCode(t, name, err, test.code, test.part)
	}
	_, err := n.cluster.SettleConflict(t.Context(), connect.NewRequest(&adminv1.SettleConflictRequest{Side: keepSide}))
	wantCode(t, "nothing", err, connect.CodeInvalidArgument, "ref.kind")
	if len(n.conflicts(t, nil)) != 2 {
		t.Error("something was settled all the same")
	}
}

// A deletion that won can be kept, and what it won over brought back.
func TestSettleConflictOfSomethingDeleted(t *testing.T) {
	n := startNode(t)
	n.apply(t, cartBackends)
	other := elsewhere(t)
	declareAt(t, other, "bob", strings.ReplaceAll(cartBackends, "127.0.0.1", "10.9.9.9"))
	for _, name := range []string{"cart-v1", "cart-v2"} {
		id := store.ID{Kind: "Backend", Namespace: "default", Name: name}
		if _, err := other.Write(t.Context(), store.Txn{Author: store.Author{Actor: "bob"}, Ops: []store.Op{{ID: id, Delete: true}}}); err != nil {
			t.Fatal(err)
		}
	}
	n.merge(t, other)
	all := n.conflicts(t, nil)
	if len(all) != 2 || !all[0].GetHolds().GetObject().GetDeleted() || all[0].GetHolds().GetObject().GetManifest() != "" {
		t.Fatalf("conflicts %v", all)
	}
	holds := all[0].GetHolds().GetObject().GetRevision()
	taken, err := n.settle(t, "cart-v1", &adminv1.SettleConflictRequest{Side: takeSide, IfRevision: holds, Wait: adminv1.Wait_WAIT_ALL})
	if err != nil || len(taken.GetChanges()) != 1 || n.get(t, "Backend", "cart-v1").GetObject() == nil || taken.GetPeers() == nil {
		t.Errorf("take: %v, %v", taken, err)
	}
	if _, err := n.settle(t, "cart-v2", &adminv1.SettleConflictRequest{Side: keepSide}); err != nil {
		t.Error(err)
	}
	if left := n.conflicts(t, nil); len(left) != 0 {
		t.Errorf("left are %v", left)
	}
	_, err = n.resources.Get(t.Context(), connect.NewRequest(&adminv1.GetRequest{Ref: ref("Backend", "cart-v2")}))
	wantCode(t, "what was kept deleted", err, connect.CodeNotFound, "cart-v2")
}
