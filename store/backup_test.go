package store

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func backUp(t *testing.T, s *Store) string {
	t.Helper()
	var b bytes.Buffer
	if err := s.Backup(&b); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "backup")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRestoreMakesWhatWasBackedUp(t *testing.T) {
	wall := newTestClock()
	s := openStore(t, Options{Now: wall.Now})
	applyText(t, s, splitText("cart", "cart-v1=90", "cart-v2=10"))
	mustWrite(t, s, Txn{Ops: []Op{splitOp(cart, SplitEdit{Shares: []Share{{"cart-v2", 1}}}), setState(cartV1, State{Drains: []Drain{{}}})}})
	path, digest := backUp(t, s), s.Snapshot().Digest()

	wall.pass(time.Hour)
	applyText(t, s, splitText("other", "other-v1=1"))
	mustWrite(t, s, Txn{Ops: []Op{{ID: cart, Delete: true}, {ID: cartV1, Delete: true}}})
	before := s.Snapshot()
	author := Author{Actor: "alice", Reason: "lost it"}
	result, err := s.Restore(t.Context(), path, author, true)
	if err != nil || len(result.Changes) != 4 || s.Snapshot() != before {
		t.Fatalf("dry run: %+v, %v", result, err)
	}
	result, err = s.Restore(t.Context(), path, author, false)
	if err != nil || len(result.Changes) != 4 || s.Snapshot().Digest() != digest {
		t.Fatalf("%+v, %v", result, err)
	}
	for _, c := range result.Changes {
		if c.Action != ActionRestore || c.After.Author != author || c.After.Revision.Compare(before.All("")[0].Revision) <= 0 {
			t.Errorf("change %+v", c)
		}
	}
	// Once more there is nothing to do.
	if result, err := s.Restore(t.Context(), path, author, false); err != nil || len(result.Changes) != 0 {
		t.Errorf("again: %+v, %v", result, err)
	}
	// Another node, on which a file declares some of it.
	other := openStore(t, Options{Now: wall.Now})
	mustSync(t, other, backendText("cart-v1", "")+"---\n"+backendText("of-a-file", ""))
	result, err = other.Restore(t.Context(), path, author, false)
	if err != nil || len(result.Changes) != 3 || len(result.Warnings) != 2 {
		t.Fatalf("%+v, %v", result, err)
	}
	if o := mustGet(t, other, cartV1); o.Owner.Kind != OwnerFile || o.State.DrainOf("") == nil {
		t.Errorf("what a file declares: %+v", o)
	}
	if o := mustGet(t, other, cart); o.Owner.Kind != OwnerAPI || o.Revision.Node != other.Node() {
		t.Errorf("restored: %+v", o)
	}
}

func TestRestoreRefusesWhatIsNoBackup(t *testing.T) {
	s := openStore(t, Options{})
	applyText(t, s, splitText("cart", "cart-v1=90", "cart-v2=10"))
	path := backUp(t, s)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before := s.Snapshot()
	flipped := bytes.Clone(data)
	at := bytes.Index(flipped, []byte(`"cart-v1"`))
	flipped[at+1] ^= 1
	for name, content := range map[string][]byte{
		"empty": nil, "text": []byte("hello"), "cut short": data[:len(data)/2], "damaged": flipped, "zeros": make([]byte, len(data)),
	} {
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Restore(t.Context(), file, Author{}, false); err == nil || !strings.Contains(err.Error(), "restore from") {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if _, err := s.Restore(t.Context(), filepath.Join(t.TempDir(), "missing"), Author{}, false); err == nil {
		t.Error("restored from nothing")
	}
	if s.Snapshot() != before {
		t.Error("something was changed")
	}
}

// A backup whose sums are right may still hold what nobody could have applied.
func TestRestoreIsAsStrictAsApply(t *testing.T) {
	s := openStore(t, Options{})
	applyText(t, s, splitText("cart", "cart-v1=90", "cart-v2=10"))
	odd := *mustGet(t, s, cart).Resource.(*GRPCRoute)
	odd.Spec.Hostnames = []string{"not a hostname"}
	mustWrite(t, s, Txn{Ops: []Op{{Apply: &odd}}})
	path := backUp(t, s)
	other := openStore(t, Options{})
	_, err := other.Restore(t.Context(), path, Author{}, false)
	var faults Faults
	if !errors.As(err, &faults) || !strings.Contains(err.Error(), "spec.hostnames[0]") {
		t.Errorf("error %v, want the fault", err)
	}
	if other.Snapshot().Len("") != 0 {
		t.Error("something was restored")
	}
}
