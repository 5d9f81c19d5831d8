package store

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"sluice/store/disk"
)

// ofTwoFiles is a Backend that two nodes' files declare otherwise, and which has lost.
func ofTwoFiles(t testing.TB) *Object {
	o := foreignDrain(t)
	o.Owner = Owner{OwnerPeer, "theirs.yaml:1"}
	mine := parseText(t, backendText("cart-v1", ", labels: {a: b}")).Backends[0]
	if err := o.underFile(&fileWord{mine, "mine.yaml:2"}, "mine"); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestRowsKeepWhatLostAndWhatOthersHave(t *testing.T) {
	for _, o := range []*Object{foreignDrain(t), ofTwoFiles(t)} {
		row, err := encodeObject(o)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeObject(o.ID, row)
		if err != nil || got.differs(o) != "" || got.Lost[0].differs(o.Lost[0]) != "" {
			t.Fatalf("%s, %v", brief(got), err)
		}
		if again, err := encodeObject(got); err != nil || !bytes.Equal(again, row) {
			t.Errorf("written again as %s, %v", again, err)
		}
		if o.elsewhere != nil && (got.Elsewhere() == nil || got.travelling().Owner.File != "theirs.yaml:1") {
			t.Errorf("elsewhere is %v", got.Elsewhere())
		}
		for cut := range row {
			if _, err := decodeObject(o.ID, row[:cut]); err == nil {
				t.Errorf("a row cut to %d of %d bytes is read", cut, len(row))
			}
		}
	}
}

// A row of versions that lost within one another ends no process.
func TestRowsOfLostVersionsAreNotNested(t *testing.T) {
	var row []byte
	for range 2000 {
		row = append(appendPart(nil, []byte(`{"lost":1,"deleted":true}`)), appendPart(nil, row)...)
	}
	if _, err := decodeObject(cartV1, row); err == nil || !strings.Contains(err.Error(), "1 versions that lost, limit 0") {
		t.Errorf("decoded with %v", err)
	}
	if _, err := DecodeForeign(cartV1, row); err == nil {
		t.Error("decoded as another node's")
	}
}

// Rows of the format before versions could lose are read as they are.
func TestStoreReadsRowsOfFormat2(t *testing.T) {
	s := openStore(t, Options{})
	applyText(t, s, backendText("cart-v1", ""))
	err := s.disk.Update(func(tx *disk.Tx) error {
		node, err := readNode(tx)
		node.Format = 2
		if err != nil {
			return err
		}
		return writeNode(tx, node)
	})
	if err != nil {
		t.Fatal(err)
	}
	s = reopen(t, s)
	applyText(t, s, labelled("later"))
	err = s.disk.View(func(tx *disk.Tx) error {
		node, err := readNode(tx)
		if node.Format != rowFormat {
			t.Errorf("written on in format %d", node.Format)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// What is served of a conflict is what the disk has, and makes sense.
func TestCheckConsistencyKnowsConflicts(t *testing.T) {
	for _, tamper := range []struct {
		name   string
		change func(*Object)
		want   string
	}{
		{"nothing", func(*Object) {}, ""},
		{"lost is forgotten", func(o *Object) { o.Lost = nil }, "what it won over is served otherwise"},
		{"lost is unseen", func(o *Object) { o.Lost[0].Revision.Node = "nobody" }, "has not seen it"},
		{"elsewhere is forgotten", func(o *Object) { o.elsewhere = nil }, "what other nodes have is served otherwise"},
		{"elsewhere is here", func(o *Object) { o.elsewhere.manifest = o.manifest }, "other nodes have another manifest"},
	} {
		t.Run(tamper.name, func(t *testing.T) {
			wall := newTestClock()
			s := openStore(t, Options{Now: wall.Now, AllowUnresolved: true})
			mustSync(t, s, labelled("mine"))
			o := foreignDrain(t)
			o.Owner.File = "theirs.yaml:1"
			send(t, s, o)
			kept := mustGet(t, s, cartV1)
			if kept.Elsewhere() == nil || len(kept.Lost) != 1 {
				t.Fatalf("kept %s", brief(kept))
			}
			lost, elsewhere := *kept.Lost[0].copy(), *kept.elsewhere
			was := kept.Lost
			kept.Lost = append([]*Object{lost.copy()}, was[1:]...)
			tamper.change(kept)
			err := s.CheckConsistency()
			kept.Lost, kept.elsewhere = was, &elsewhere
			if (err == nil) != (tamper.want == "") || err != nil && !strings.Contains(err.Error(), tamper.want) {
				t.Errorf("checked with %v, want %q", err, tamper.want)
			}
		})
	}
}

// What is sent has no more than the form says: another version reads it strictly.
func TestForeignHeadIsWhatIsWritten(t *testing.T) {
	head, _, err := cutPart(mustEncode(t, foreignDrain(t)))
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(head, &fields); err != nil {
		t.Fatal(err)
	}
	var names []string
	for name := range fields {
		names = append(names, name)
	}
	if len(names) != 8 || fields["elsewhere"] != nil {
		t.Errorf("the head of a row has %s; raise Vocabulary when it gets another", fmt.Sprint(names))
	}
}
