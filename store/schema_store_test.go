package store

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"
)

var large = ID{SchemaKind, "default", "large"}

// A Schema as large as may be goes every way that an object goes.
func TestLargeSchemaIsKept(t *testing.T) {
	s := openStore(t, Options{})
	sets := map[int][]byte{1: largeSet(t, 1), 2: largeSet(t, 2)}
	text := schemaText("large", "", sets[1])
	mustSync(t, s, backendText("cart-v1", "")+"---\n"+text)
	check := func(step string, s *Store, want int) {
		t.Helper()
		if got := mustGet(t, s, large).Resource.(*Schema).Spec.DescriptorSet; !bytes.Equal(got, sets[want]) {
			t.Errorf("%s: %d bytes, want %d", step, len(got), len(sets[want]))
		}
		if set := s.Snapshot().Effective(); len(set.Schemas) != 1 || set.Schemas[0] != mustGet(t, s, large).Resource {
			t.Errorf("%s: in effect are %d schemas", step, len(set.Schemas))
		}
	}
	check("from a file", s, 1)
	s = reopen(t, s)
	check("after a restart", s, 1)
	set := parseText(t, schemaText("large", "", sets[2]))
	mustWrite(t, s, Txn{TakeOver: true, Ops: applyOps(set)})
	check("written over", s, 2)

	first := s.Watch(0)
	for _, want := range []string{"cart-v1", "large", "large"} {
		c, err := first.Next(t.Context())
		if err != nil || c.ID.Name != want {
			t.Fatalf("watched %v, %v; want %s", c.ID, err, want)
		}
	}
	changes, err := s.History(large, 0, 0)
	if err != nil || len(changes) == 0 || !bytes.Equal(changes[0].Before.Resource.(*Schema).Spec.DescriptorSet, sets[1]) {
		t.Fatalf("history: %d changes, %v", len(changes), err)
	}
	path := backUp(t, s)
	mustWrite(t, s, Txn{Ops: []Op{{Exact: changes[0].Before}}})
	check("rolled back", s, 1)
	if _, err := s.Restore(t.Context(), path, Author{Actor: "alice"}, false); err != nil {
		t.Fatal(err)
	}
	check("restored", s, 2)

	peer := openStore(t, Options{Now: func() time.Time { return time.Now().Add(time.Second) }})
	if result, err := peer.Merge(t.Context(), []*Object{mustGet(t, s, large)}); err != nil || len(result.Refused) > 0 {
		t.Fatalf("merged: %+v, %v", result, err)
	}
	check("at a peer", peer, 2)
}

// A large Schema that is pushed time and again takes its share of the history and no
// more: what others did is still there.
func TestLargeSchemaLeavesRoomInTheHistory(t *testing.T) {
	l := defaultLimits
	l.bytes, l.objectBytes, l.tail = 4<<20, 1<<20, 100_000
	s := openStore(t, Options{limits: &l})
	applyText(t, s, splitText("cart", "cart-v1=90", "cart-v2=10"))
	var last []byte
	for seed := range uint64(60) {
		set := descriptorSet(t, protoFile("a.proto"), withPackage(protoFile(strings.Repeat(string(rune('a'+seed%26)), 60_000)), "b"))
		last = set
		applyText(t, s, schemaText("large", "", set))
	}
	count, size := len(s.timeline.byObject[large]), s.timeline.sizes[large]
	if count < 3 || size > l.objectBytes {
		t.Errorf("%d changes of %d bytes are kept, limit %d bytes", count, size, l.objectBytes)
	}
	s = reopen(t, s)
	if s.timeline.sizes[large] != size || len(s.timeline.byObject[large]) != count {
		t.Errorf("after a restart %d changes of %d bytes, before %d of %d", len(s.timeline.byObject[large]), s.timeline.sizes[large], count, size)
	}
	if changes, err := s.History(cart, 0, 0); err != nil || len(changes) != 1 {
		t.Errorf("history of the route: %d changes, %v", len(changes), err)
	}
	// One change that is larger than the bound stays until the next one.
	s.timeline.limits.objectBytes = 1000
	for _, name := range []string{"large", "other", "large"} {
		applyText(t, s, schemaText(name, "", last))
		applyText(t, s, schemaText(name, "  backendRefs: [{name: cart-v1}]\n", last))
		id := ID{SchemaKind, "default", name}
		if got := s.timeline.byObject[id]; len(got) != 1 || got[0] != s.Snapshot().Seq() {
			t.Errorf("of %s the changes %v are kept, want the last, %d", name, got, s.Snapshot().Seq())
		}
	}
	s.timeline.limits.recent = 2
	for _, name := range []string{"a", "b", "c", "d"} {
		applyText(t, s, backendText(name, ""))
	}
	if got := s.timeline.byObject[large]; len(got) != 1 {
		t.Errorf("of %s, which is not recent any more, the changes %v are kept, want the last", large, got)
	}
}

func TestSchemasAreBoundedTogether(t *testing.T) {
	l := defaultLimits
	l.descriptors = 2000
	s := openStore(t, Options{limits: &l})
	ops := func(n, size int) (ops []Op) {
		for i := range n {
			schema := &Schema{Meta: Meta{Namespace: "default", Name: string(rune('a' + i))}}
			schema.Spec.DescriptorSet = make([]byte, size)
			ops = append(ops, Op{Apply: schema})
		}
		return ops
	}
	mustWrite(t, s, Txn{Ops: ops(20, 100)})
	_, err := s.Write(context.Background(), Txn{Ops: ops(21, 100)})
	if err == nil || !strings.Contains(err.Error(), "2100 bytes of descriptors in all Schemas, limit 2000") {
		t.Errorf("21 of them: %v", err)
	}
	// What is there already may shrink, whatever the limit has become.
	s.opts.limits.descriptors = 1000
	mustWrite(t, s, Txn{Ops: ops(20, 99)})
}

func TestSchemaRefersToBackends(t *testing.T) {
	text := schemaText("s", "  backendRefs: [{name: cart-v1}, {name: cart-v1, namespace: other}]\n", descriptorSet(t, protoFile("a.proto")))
	set := parseText(t, text)
	want := "in.yaml:6:24: spec.backendRefs[0].name: no Backend default/cart-v1 is declared\n" +
		"in.yaml:6:41: spec.backendRefs[1].name: no Backend other/cart-v1 is declared"
	if got := set.Unresolved().Error(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	s := openStore(t, Options{})
	_, err := s.Write(context.Background(), Txn{Ops: applyOps(set)})
	if err == nil || !strings.Contains(err.Error(), "spec.backendRefs[1].name: Schema default/s refers to Backend other/cart-v1, which is not declared") {
		t.Errorf("written without its backends: %v", err)
	}
	mustWrite(t, s, Txn{AllowUnresolved: true, Ops: applyOps(set)})
	applyText(t, s, backendText("cart-v1", ""))
	o := mustGet(t, s, ID{SchemaKind, "default", "s"})
	if got := s.Snapshot().Unresolved(o); len(got) != 1 || got[0].Field != "spec.backendRefs[1].name" {
		t.Errorf("unresolved: %v", got)
	}
	_, err = s.Write(context.Background(), Txn{Ops: []Op{{ID: cartV1, Delete: true}}})
	if err == nil || !strings.Contains(err.Error(), "Schema default/s refers to Backend default/cart-v1, which would be gone") {
		t.Errorf("the backend is deleted: %v", err)
	}
}
