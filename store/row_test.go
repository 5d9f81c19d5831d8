package store

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"sluice/store/disk"
)

func TestRowsReadWhatTheyWrite(t *testing.T) {
	route := parseText(t, splitText("cart", "cart-v1=90", "cart-v2=10")).GRPCRoutes[0]
	r := Revision{1763766000123, 7, "k3f9x2ab"}
	now := time.Date(2026, 3, 1, 12, 0, 0, 123_000_000, time.UTC)
	o := &Object{
		ID: cart, Revision: r, Vector: Vector{}.with(r).with(Revision{5, 0, "other"}), Owner: Owner{OwnerFile, "a b.yaml:12"},
		Created: now, Changed: now.Add(time.Hour), Author: Author{"alice", "cli", "10.0.0.1:5", `"why" <é>`},
		State: State{Disabled: true, Splits: []RuleSplit{{
			Rule: "all", Shares: []Share{{"default/cart-v1", 0}, {"default/cart-v2", 1}}, Pins: []Pin{{"x", "<&>", "default/cart-v1"}},
			Sticky: "x-user", SpillOver: ptr(false), Sides: []Side{{space, "default/cart-v2"}}, Since: now, By: "bob",
		}}},
	}
	if err := o.setResource(withMeta(route, keepMeta)); err != nil {
		t.Fatal(err)
	}
	row, err := encodeObject(o)
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeObject(cart, row)
	if err != nil || got.differs(o) != "" {
		t.Errorf("%+v, %v", got, err)
	}
	if split := got.State.Splits[0]; split.By != "bob" || !split.Since.Equal(now) {
		t.Errorf("split %+v", split)
	}
	for _, c := range []*Change{
		{Seq: 9, Time: now, Action: "split", ID: cart, After: o},
		{Seq: 9, Time: now, Action: "split", ID: cart, Before: o, After: o, Lost: o},
	} {
		changeRow, err := encodeChange(c, row)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeChange(9, changeRow)
		if err != nil || got.Seq != 9 || got.Action != "split" || got.ID != cart || !got.Time.Equal(now) ||
			got.After.differs(o) != "" || (got.Before == nil) != (c.Before == nil) || (got.Lost == nil) != (c.Lost == nil) {
			t.Errorf("%+v, %v", got, err)
		}
		for cut := range changeRow {
			if _, err := decodeChange(9, changeRow[:cut]); err == nil {
				t.Errorf("a row cut to %d of %d bytes is read", cut, len(changeRow))
			}
		}
	}
	if _, err := decodeObject(ID{GRPCRouteKind, "default", "other"}, row); err == nil || !strings.Contains(err.Error(), "it declares GRPCRoute default/cart") {
		t.Errorf("at another key: %v", err)
	}
}

func TestStoreRefusesRowsOfALaterVersion(t *testing.T) {
	s := openStore(t, Options{})
	applyText(t, s, backendText("a", ""))
	err := s.disk.Update(func(tx *disk.Tx) error {
		node, err := readNode(tx)
		node.Format = rowFormat + 1
		if err != nil {
			return err
		}
		return writeNode(tx, node)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(s.opts); err == nil || !strings.Contains(err.Error(), "rows of format 4, this version reads 3") {
		t.Errorf("error %v", err)
	}
}

// Rows that somebody else has made are refused, not fallen over, and what is read is
// written the same again.
func FuzzDecodeChange(f *testing.F) {
	for _, text := range []string{`{}`, `{"time":"2026-03-01T12:00:00Z","action":"a","id":{"kind":"Backend","namespace":"default","name":"a"}}`} {
		object := appendPart(nil, []byte(`{"revision":"1.0@a","owner":{"kind":"api"},"state":{"drained":true,"drainedEndpoints":["a:1"],"drains":[{"endpoint":"b:1","grace":"1s"}]},"created":"2026-03-01T12:00:00Z","changed":"2026-03-01T12:00:00Z","author":{}}`))
		object = append(object, `{"apiVersion":"sluice.dev/v1alpha1","kind":"Backend","metadata":{"namespace":"default","name":"a"},"spec":{"endpoints":[]}}`...)
		row := appendPart(appendPart(appendPart(nil, []byte(text)), object), nil)
		f.Add(appendPart(row, nil))
		f.Add(row)
	}
	f.Fuzz(func(t *testing.T, row []byte) {
		c, err := decodeChange(1, row)
		if err != nil || c.After == nil {
			return
		}
		after, err := encodeObject(c.After)
		if err != nil {
			return // a time beyond what JSON can say
		}
		again, err := encodeChange(c, after)
		if err != nil {
			return
		}
		back, err := decodeChange(1, again)
		if err != nil {
			t.Fatalf("what was read cannot be read again: %v", err)
		}
		after2, err := encodeObject(back.After)
		if err != nil || !bytes.Equal(after, after2) {
			t.Fatalf("another object: %q, then %q; %v", after, after2, err)
		}
	})
}
