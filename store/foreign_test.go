package store

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// foreignVersion is a version that another node has made of a resource.
func foreignVersion(t testing.TB, resource Resource) *Object {
	t.Helper()
	now := newTestClock().Now()
	r := Revision{now.UnixMilli(), 1, "peer"}
	o := &Object{
		ID: ResourceID(resource), Revision: r, Vector: Vector{}.with(r).with(Revision{now.UnixMilli() - 1, 0, "other"}),
		Owner: Owner{Kind: OwnerPeer}, Created: now, Changed: now, Author: Author{Actor: "alice", Via: "cli"},
	}
	if err := o.setResource(withMeta(resource, keepMeta)); err != nil {
		t.Fatal(err)
	}
	return o
}

// foreignSplit is a version of a route with a split of every sort.
func foreignSplit(t testing.TB) *Object {
	o := foreignVersion(t, parseText(t, splitText("cart", "cart-v1=90", "cart-v2=10")).GRPCRoutes[0])
	o.State.Splits = []RuleSplit{{
		Rule: "all", Shares: []Share{{"default/cart-v1", 0}, {"default/cart-v2", 1}}, Pins: []Pin{{"x-user", "bob", "default/cart-v1"}},
		Sticky: "x-user", SpillOver: ptr(true), Sides: []Side{{1 << 31, "default/cart-v1"}, {space, "default/cart-v2"}},
		Since: o.Changed, By: "alice",
	}}
	return o
}

// foreignDrain is a version of a Backend with two drains, which has lost another.
func foreignDrain(t testing.TB) *Object {
	o := foreignVersion(t, parseText(t, backendText("cart-v1", "")).Backends[0])
	o.State.Drains = []Drain{{Since: o.Changed, Grace: Duration(time.Second), By: "bob"}, {Endpoint: "10.0.0.1:1", Since: o.Changed}}
	lost := o.copy()
	lost.Revision, lost.Vector, lost.State = Revision{o.Revision.Wall - 1, 0, "other"}, nil, State{}
	o.Lost = []*Object{lost}
	return o
}

func foreignRegistration(t testing.TB) *Object {
	return foreignVersion(t, registration("cart", "10.0.0.1:1"))
}

func mustEncode(t testing.TB, o *Object) []byte {
	t.Helper()
	row, err := EncodeForeign(o)
	if err != nil {
		t.Fatal(err)
	}
	return row
}

// What a node of good health sends arrives as it is.
func TestDecodeForeignReadsWhatIsSent(t *testing.T) {
	gone := foreignDrain(t)
	gone.bury()
	for _, o := range []*Object{
		foreignSplit(t), foreignDrain(t), foreignRegistration(t), gone,
		foreignVersion(t, parseText(t, schemaText("cart", "", descriptorSet(t, protoFile("a.proto")))).Schemas[0]),
	} {
		got := travelled(t, o)
		if difference := got.differs(o); difference != "" {
			t.Errorf("%s: %s has not arrived", o.ID, difference)
		}
		if !got.State.identical(o.State) {
			t.Errorf("%s: state %+v, want %+v", o.ID, got.State, o.State)
		}
		if again := mustEncode(t, got); !bytes.Equal(again, mustEncode(t, o)) {
			t.Errorf("%s: it is passed on as\n%s", o.ID, again)
		}
	}
	ofFile := foreignDrain(t)
	ofFile.Owner = Owner{OwnerFile, "routes.yaml:12"}
	ofFile.Lost[0].Owner = Owner{OwnerFile, "other.yaml:1"}
	if got := travelled(t, ofFile); got.Owner != (Owner{OwnerPeer, "routes.yaml:12"}) || got.Lost[0].Owner != (Owner{OwnerPeer, "other.yaml:1"}) {
		t.Errorf("owners %v and %v", got.Owner, got.Lost[0].Owner)
	}
}

// forgery is a version that no node of good health has made.
type forgery struct {
	name   string
	of     func(testing.TB) *Object
	change func(*Object)
	want   string
}

func inSplit(change func(*RuleSplit)) func(*Object) {
	return func(o *Object) { change(&o.State.Splits[0]) }
}

func inDrain(change func(*Drain)) func(*Object) {
	return func(o *Object) { change(&o.State.Drains[1]) }
}

func inLost(change func(*Object)) func(*Object) {
	return func(o *Object) { change(o.Lost[0]) }
}

func inRegistration(change func(*Registration)) func(*Object) {
	return func(o *Object) {
		change(o.Resource.(*Registration))
		if err := o.setResource(o.Resource); err != nil {
			panic(err)
		}
	}
}

func times[T any](n int, make func(i int) T) []T {
	list := []T{}
	for i := range n {
		list = append(list, make(i))
	}
	return list
}

var forgeries = []forgery{
	{"no revision", foreignSplit, func(o *Object) { o.Revision = Revision{} }, "is not part of its own past"},
	{"not of its past", foreignSplit, func(o *Object) { o.Vector = nil }, "is not part of its own past"},
	{"the past is later", foreignSplit, func(o *Object) { o.Vector = o.Vector.with(Revision{o.Revision.Wall + 1, 0, "other"}) }, "has seen the later"},
	{"too many nodes", foreignSplit, func(o *Object) {
		o.Vector = o.Vector.union(nil)
		for i := range maxNodes {
			o.Vector[fmt.Sprint("n", i)] = Revision{1, 0, fmt.Sprint("n", i)}
		}
	}, "nodes, limit 1000"},
	{"never made", foreignSplit, func(o *Object) { o.Created = time.Time{} }, "does not say when"},
	{"never changed", foreignSplit, func(o *Object) { o.Changed = time.Time{} }, "does not say when"},
	{"an author of many words", foreignSplit, func(o *Object) { o.Author.Reason = strings.Repeat("a", maxAuthor+1) }, "reason: 1025 bytes"},
	{"an author of many lines", foreignSplit, func(o *Object) { o.Author.Actor = "a\nb" }, "control characters"},
	{"a file of many lines", foreignSplit, func(o *Object) { o.Owner.File = "a\nb" }, "control characters"},
	{"a file of many words", foreignSplit, func(o *Object) { o.Owner.File = strings.Repeat("a", maxOwnerFile+1) }, "bytes, limit"},

	{"a split of a Backend", foreignDrain, func(o *Object) { o.State.Splits = []RuleSplit{{Rule: "0", Turns: true}} }, "only a route can be split"},
	{"a disabled Backend", foreignDrain, func(o *Object) { o.State.Disabled = true }, "only a route can be disabled"},
	{"a drained route", foreignSplit, func(o *Object) { o.State.Drains = []Drain{{}} }, "only a Backend can be drained"},
	{"a state of what is deleted", foreignDrain, func(o *Object) { o.Deleted, o.Resource = true, nil }, "only a Backend can be drained"},
	{"splits without end", foreignSplit, func(o *Object) {
		o.State.Splits = times(maxSplits+1, func(i int) RuleSplit { return RuleSplit{Rule: fmt.Sprint(i), Turns: true} })
	}, "257 of them, limit 256"},
	{"two splits of a rule", foreignSplit, func(o *Object) { o.State.Splits = append(o.State.Splits, o.State.Splits[0]) }, "each once"},
	{"a rule without a name", foreignSplit, inSplit(func(s *RuleSplit) { s.Rule = "a b" }), "each once"},
	{"shares without end", foreignSplit, inSplit(func(s *RuleSplit) {
		s.Shares = times(17, func(i int) Share { return Share{fmt.Sprint("default/b", i), 1} })
	}), "17 of them, limit 16"},
	{"a backend twice", foreignSplit, inSplit(func(s *RuleSplit) { s.Shares = append(s.Shares, s.Shares[0]) }), "stands there twice"},
	{"a backend without a namespace", foreignSplit, inSplit(func(s *RuleSplit) { s.Shares[0].Backend = "cart-v1" }), "want namespace/name"},
	{"a backend of no namespace", foreignSplit, inSplit(func(s *RuleSplit) { s.Shares[0].Backend = "A/cart-v1" }), "namespace: want"},
	{"too heavy", foreignSplit, inSplit(func(s *RuleSplit) { s.Shares[0].Weight = maxWeight + 1 }), "out of range"},
	{"no weight at all", foreignSplit, inSplit(func(s *RuleSplit) { s.Shares[1].Weight = 0 }), "every weight is 0"},
	{"pins without end", foreignSplit, inSplit(func(s *RuleSplit) {
		s.Pins = times(maxPins+1, func(i int) Pin { return Pin{"x", fmt.Sprint(i), "default/a"} })
	}), "101 of them, limit 100"},
	{"a pin of no header", foreignSplit, inSplit(func(s *RuleSplit) { s.Pins[0].Header = ":path" }), "pseudo-headers"},
	{"a pin in upper case", foreignSplit, inSplit(func(s *RuleSplit) { s.Pins[0].Header = "X-User" }), "want lower case"},
	{"a pin of no value", foreignSplit, inSplit(func(s *RuleSplit) { s.Pins[0].Value = "" }), "want a value"},
	{"a pin to no backend", foreignSplit, inSplit(func(s *RuleSplit) { s.Pins[0].Backend = "" }), "want namespace/name"},
	{"a pin twice", foreignSplit, inSplit(func(s *RuleSplit) { s.Pins = append(s.Pins, s.Pins[0]) }), "stands there twice"},
	{"sticky in upper case", foreignSplit, inSplit(func(s *RuleSplit) { s.Sticky = "X-User" }), "want metadata in lower case"},
	{"sticky and turns", foreignSplit, inSplit(func(s *RuleSplit) { s.Turns = true }), "or turns"},
	{"sides that end early", foreignSplit, inSplit(func(s *RuleSplit) { s.Sides = s.Sides[:1] }), "they end at 2147483648"},
	{"sides that end late", foreignSplit, inSplit(func(s *RuleSplit) { s.Sides[1].End = space + 1 }), "they end at 4294967297"},
	{"sides that go back", foreignSplit, inSplit(func(s *RuleSplit) { s.Sides[0].End = space }), "side to 4294967296"},
	{"an empty side", foreignSplit, inSplit(func(s *RuleSplit) { s.Sides[0].End = 0 }), "side to 0"},
	{"two sides in one", foreignSplit, inSplit(func(s *RuleSplit) { s.Sides[0].Backend = s.Sides[1].Backend }), "side to"},
	{"a side of nobody", foreignSplit, inSplit(func(s *RuleSplit) { s.Sides[1].Backend = "" }), "want namespace/name"},
	{"sides without end", foreignSplit, inSplit(func(s *RuleSplit) {
		s.Sides = times(maxSides+1, func(i int) Side { return Side{uint64(i + 1), fmt.Sprint("default/b", i%2)} })
	}), "4097 of them, limit 4096"},
	{"a split of tomorrow", foreignSplit, inSplit(func(s *RuleSplit) { s.Since = s.Since.Add(24 * time.Hour) }), "later than the change"},
	{"a split by two lines", foreignSplit, inSplit(func(s *RuleSplit) { s.By = "a\nb" }), "control characters"},

	{"drains without end", foreignDrain, func(o *Object) {
		o.State.Drains = times(maxDrains+1, func(i int) Drain { return Drain{Endpoint: fmt.Sprint("h:", i+1)} })
	}, "10001 of them, limit 10000"},
	{"a drain of no address", foreignDrain, inDrain(func(d *Drain) { d.Endpoint = "nowhere" }), "want host:port"},
	{"a drain of every address", foreignDrain, inDrain(func(d *Drain) { d.Endpoint = "0.0.0.0:1" }), "one machine"},
	{"a drain of tomorrow", foreignDrain, inDrain(func(d *Drain) { d.Since = d.Since.Add(24 * time.Hour) }), "later than the change"},
	{"a drain by two lines", foreignDrain, inDrain(func(d *Drain) { d.By = "a\nb" }), "control characters"},

	{"an unseen one has lost", foreignDrain, inLost(func(o *Object) { o.Revision = Revision{1, 0, "third"} }), "has not seen it"},
	{"a later one has lost", foreignDrain, func(o *Object) {
		o.Lost[0].Revision = Revision{o.Revision.Wall, 2, "other"}
		o.Vector = o.Vector.with(Revision{o.Revision.Wall, 0, "other"})
	}, "has not seen it"},
	{"one has lost to itself", foreignDrain, func(o *Object) { o.Lost[0].Revision = o.Revision }, "want another one"},
	{"one of no revision has lost", foreignDrain, inLost(func(o *Object) { o.Revision = Revision{} }), "want another one"},
	{"one with a past has lost", foreignDrain, inLost(func(o *Object) { o.Vector = Vector{}.with(o.Revision) }), "has a past of its own"},
	{"too many have lost", foreignDrain, func(o *Object) { o.Lost = slices.Repeat(o.Lost, 5) }, "limit 4"},
	{"a registration has lost", foreignRegistration, func(o *Object) { o.Lost = []*Object{foreignRegistration(&testing.T{})} }, "limit 0"},
	{"one that is neither has lost", foreignDrain, inLost(func(o *Object) { o.Created = time.Time{} }), "does not say when"},
	{"one of a bad state has lost", foreignDrain, inLost(func(o *Object) { o.State.Disabled = true }), "only a route"},

	{"a registration of a file", foreignRegistration, func(o *Object) { o.Owner.File = "a:1" }, "no file declares"},
	{"a registration of another name", foreignRegistration, inRegistration(func(r *Registration) { r.Spec.Address = "10.0.0.2:1" }), "is not the name of a registration"},
	{"a registration without end", foreignRegistration, inRegistration(func(r *Registration) { r.Spec.Lease = Duration(25 * time.Hour) }), "out of range"},
	{"a registration of no lease", foreignRegistration, inRegistration(func(r *Registration) { r.Spec.Lease = 0 }), "out of range"},
	{"a registration of no zone", foreignRegistration, inRegistration(func(r *Registration) { r.Spec.Zone = "a\nb" }), "printable"},
	{"a registration by no token", foreignRegistration, inRegistration(func(r *Registration) { r.Spec.Token = "a\nb" }), "the ID of a token"},
	{"a registration with labels", foreignRegistration, inRegistration(func(r *Registration) { r.Labels = map[string]string{"a": "b"} }), "neither labels"},

	{"a backend of no protocol", foreignDrain, func(o *Object) {
		o.Resource.(*Backend).Spec.Protocol = "carrier-pigeon"
		_ = o.setResource(o.Resource)
	}, "carrier-pigeon"},
}

// Whatever a peer makes up is refused, on the wire and in the store, and nothing here is
// changed by it.
func TestForgedVersionsAreRefused(t *testing.T) {
	s := openStore(t, Options{Now: newTestClock().Now, AllowUnresolved: true})
	applyText(t, s, backendText("cart-v1", "")+"---\n"+splitText("cart", "cart-v2=1", "cart-v3=1"))
	before := s.Snapshot()
	for _, f := range forgeries {
		t.Run(f.name, func(t *testing.T) {
			o := f.of(t)
			f.change(o)
			if row, err := EncodeForeign(o); err == nil {
				if _, err := DecodeForeign(o.ID, row); err == nil || !strings.Contains(err.Error(), f.want) || len(err.Error()) > 2000 {
					t.Errorf("decoded with error %v, want %q", err, f.want)
				}
			}
			result, err := s.Merge(t.Context(), []*Object{o})
			if err != nil || len(result.Refused) != 1 || !strings.Contains(result.Refused[0].Err.Error(), f.want) {
				t.Errorf("merged with %+v, %v; want %q", result, err, f.want)
			}
		})
	}
	if s.Snapshot() != before {
		t.Error("something was changed")
	}
}

// A time that the store's clock has not reached yet is refused where there is a clock.
func TestForgedTimesAreRefused(t *testing.T) {
	wall := newTestClock()
	s := openStore(t, Options{Now: wall.Now})
	late := wall.Now().Add(61 * time.Second)
	ahead := Revision{late.UnixMilli(), 0, "peer"}
	for name, change := range map[string]func(*Object){
		"revision": func(o *Object) { o.Revision, o.Vector = ahead, o.Vector.with(ahead) },
		"created":  func(o *Object) { o.Created = late },
		"changed":  func(o *Object) { o.Changed = late },
		"lost":     func(o *Object) { o.Lost[0].Created = late },
	} {
		o := foreignDrain(t)
		change(o)
		result, err := s.Merge(t.Context(), []*Object{travelled(t, o)})
		if err != nil || len(result.Refused) != 1 || !errors.Is(result.Refused[0].Err, ErrClockAhead) {
			t.Errorf("%s: %+v, %v", name, result, err)
		}
	}
	if s.Snapshot().Len("")+len(s.Snapshot().Tombstones()) != 0 {
		t.Error("something was taken")
	}
}

// What is not the form of a row is refused, and so is what no version of this vocabulary
// writes: a later one may mean something by it.
func TestDecodeForeignRefusesOtherForms(t *testing.T) {
	header := func(old, text string) func([]byte) []byte {
		return func(row []byte) []byte {
			head, rest, err := cutPart(row)
			if err != nil || !bytes.Contains(head, []byte(old)) {
				t.Fatalf("header %s has no %s, %v", head, old, err)
			}
			return append(appendPart(nil, bytes.Replace(head, []byte(old), []byte(text), 1)), rest...)
		}
	}
	manifest := func(old, text string) func([]byte) []byte {
		return func(row []byte) []byte { return bytes.Replace(row, []byte(old), []byte(text), 1) }
	}
	tests := []struct {
		name   string
		of     func(testing.TB) *Object
		change func([]byte) []byte
		want   string
	}{
		{"empty", foreignSplit, func([]byte) []byte { return nil }, "ends too early"},
		{"huge", foreignSplit, func(row []byte) []byte { return append(row, make([]byte, maxForeign)...) }, "limit 17825792"},
		{"no JSON", foreignSplit, header(`"revision"`, `revision`), "invalid character"},
		{"a new field", foreignSplit, header(`"revision"`, `"mood":1,"revision"`), `unknown field "mood"`},
		{"a new field of the state", foreignSplit, header(`"splits"`, `"mood":1,"splits"`), `unknown field "mood"`},
		{"a new field of a split", foreignSplit, header(`"rule"`, `"mood":1,"rule"`), `unknown field "mood"`},
		{"a state of an old version", foreignSplit, header(`"splits"`, `"drained":true,"splits"`), `unknown field "drained"`},
		{"a new field of a manifest", foreignSplit, manifest(`"spec":{`, `"spec":{"mood":1,`), "mood"},
		{"a new field of a registration", foreignRegistration, manifest(`"spec":{`, `"spec":{"mood":1,`), `unknown field "mood"`},
		{"a registration of another version", foreignRegistration, manifest(BackendVersion, "sluice.dev/v9"), `want Registration of`},
		{"two manifests", foreignDrain, func(row []byte) []byte { return append(row, "\n---\n"+backendText("b", "")...) }, "2 objects, want one"},
		{"two registrations", foreignRegistration, func(row []byte) []byte { return append(row, "{}"...) }, "after the end"},
		{"another manifest", foreignSplit, manifest(`"name":"cart"`, `"name":"tart"`), "it declares GRPCRoute default/tart"},
		{"no manifest", foreignSplit, func(row []byte) []byte { return row[:len(row)-10] }, "not YAML"},
		{"more lost than there are", foreignDrain, header(`"lost":1`, `"lost":2`), ""},
		{"less than none lost", foreignDrain, header(`"lost":1`, `"lost":-1`), "-1 versions that lost"},
		{"elsewhere", foreignDrain, header(`"lost":1`, `"lost":1,"elsewhere":"a"`), "versions that lost"},
		{"a deletion with a manifest", foreignRegistration, header(`"created"`, `"deleted":true,"created"`), "a deletion with a manifest"},
		{"a grace as fine as dust", foreignDrain, header(`"grace":"1s"`, `"grace":"1us"`), "duration"},
		{"a node in upper case", foreignDrain, header(`@other`, `@OTHER`), "revision"},
		{"a year beyond all", foreignDrain, header(`"created":"2026`, `"created":"12026`), "parsing time"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			o := test.of(t)
			_, err := DecodeForeign(o.ID, test.change(mustEncode(t, o)))
			if err == nil || !strings.Contains(err.Error(), test.want) || len(err.Error()) > 2000 {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
	for _, id := range []ID{{}, {"Nothing", "default", "a"}, {BackendKind, "", "a"}, {BackendKind, "default", "A"}} {
		if _, err := DecodeForeign(id, mustEncode(t, foreignDrain(t))); err == nil || !strings.Contains(err.Error(), "not the ID of an object") {
			t.Errorf("%v: error %v", id, err)
		}
	}
}

// However a manifest is written, what it declares is kept in one form.
func TestDecodeForeignKeepsOneForm(t *testing.T) {
	o := foreignDrain(t)
	row := mustEncode(t, o)
	manifest, err := o.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	head := bytes.TrimSuffix(row, manifest)
	for _, text := range []string{
		backendText("cart-v1", ""),
		backendText("cart-v1", `, resourceVersion: "1763766000123.0@k3f9x2ab", uid: "7"`),
		" " + strings.ReplaceAll(string(manifest), ":", ": "),
	} {
		got, err := DecodeForeign(o.ID, append(bytes.Clone(head), text...))
		if err != nil || got.manifest != o.manifest {
			t.Errorf("%v from %s", err, text)
		}
	}
}

// What would be too much is refused by itself.
func TestStoreMergeTakesNoMoreThanThereMayBe(t *testing.T) {
	l := defaultLimits
	set := descriptorSet(t, protoFile("a.proto"))
	l.descriptors = len(set) + 1
	s := openStore(t, Options{limits: &l, Now: newTestClock().Now})
	schema := func(name string) *Object {
		return foreignVersion(t, parseText(t, schemaText(name, "", set)).Schemas[0])
	}
	result, err := s.Merge(t.Context(), []*Object{schema("a"), schema("b"), foreignDrain(t), schema("a")})
	if err != nil || len(result.Refused) != 1 || result.Refused[0].ID.Name != "b" || len(result.Changes) != 2 {
		t.Errorf("%+v, %v", result, err)
	}
	r := &room{objects: 0, descriptors: 100}
	if err := r.take(nil, foreignDrain(t)); err == nil || !strings.Contains(err.Error(), "more than 100000 objects") {
		t.Errorf("one too many: %v", err)
	}
	if err := r.take(foreignDrain(t), foreignDrain(t)); err != nil {
		t.Errorf("one that is there: %v", err)
	}
}

func TestPeekForeignReadsRowsOfLaterVersions(t *testing.T) {
	later := appendPart(nil, []byte(`{"mood":{"a":[1]},"revision":"5.0@a","vector":{"a":"5.0@a","b":"4.0@b"},"deleted":true,"changed":"2026-03-01T12:00:00Z","owner":7}`))
	revision, seen, deleted, changed, err := PeekForeign(append(later, "who knows"...))
	if err != nil || revision.String() != "5.0@a" || len(seen) != 2 || !deleted || changed.Year() != 2026 {
		t.Errorf("%s, %v, %t, %s, %v", revision, seen, deleted, changed, err)
	}
	for _, bad := range []string{``, `{}`, `{"revision":"5.0@a"}`, `{"revision":"5.0@a","vector":{"a":"6.0@a"}}`, `{"revision":5}`} {
		if _, _, _, _, err := PeekForeign(appendPart(nil, []byte(bad))); err == nil {
			t.Errorf("%s is read", bad)
		}
	}
	if _, _, _, _, err := PeekForeign(make([]byte, maxForeign+1)); err == nil {
		t.Error("a huge row is read")
	}
}

// A clock that was ahead, and was set right, leaves states that began later than the object
// was changed: peers take them as soon as they take its revision.
func TestStoreMergeTakesStatesOfAClockThatWasAhead(t *testing.T) {
	wall := newTestClock()
	a, b := openStore(t, Options{Now: wall.Now}), openStore(t, Options{Now: wall.Now})
	applyText(t, a, splitText("cart", "cart-v1=90", "cart-v2=10"))
	ahead := 2 * time.Minute
	wall.pass(ahead)
	split := SplitEdit{Shares: []Share{{"cart-v1", 1}, {"cart-v2", 1}}, At: wall.Now()}
	drain := State{Drains: []Drain{{Since: wall.Now()}}}
	mustWrite(t, a, Txn{Ops: []Op{setState(cartV1, drain), splitOp(cart, split)}})
	wall.pass(-ahead)
	applyText(t, a, backendText("cart-v1", ", labels: {by: a}"))
	mustWrite(t, a, Txn{Ops: []Op{setState(cart, State{Splits: mustGet(t, a, cart).State.Splits, Disabled: true})}})
	all := a.Snapshot().All("")
	result, err := b.Merge(t.Context(), []*Object{travelled(t, mustGet(t, a, cartV1))})
	if err != nil || len(result.Refused) != 1 || !errors.Is(result.Refused[0].Err, ErrClockAhead) {
		t.Errorf("%+v, %v", result, err)
	}
	wall.pass(ahead)
	send(t, b, all...)
	if got, want := b.Snapshot().Digest(), a.Snapshot().Digest(); got != want {
		t.Errorf("digests %s and %s", got, want)
	}
	before := foreignDrain(t)
	before.Changed = before.Changed.Add(-ahead)
	travelled(t, before)
	// What was restored from there on a node that knows nothing of it begins when it is.
	c := openStore(t, Options{Now: wall.Now, AllowUnresolved: true})
	wall.pass(-time.Hour)
	mustWrite(t, c, Txn{AllowUnresolved: true, Ops: []Op{{Exact: mustGet(t, a, cartV1)}, {Exact: mustGet(t, a, cart)}}})
	for _, o := range c.Snapshot().All("") {
		travelled(t, o)
	}
}

// fuzzRows are rows to begin with.
func fuzzRows(f *testing.F) {
	gone := foreignDrain(f)
	gone.bury()
	for _, o := range []*Object{foreignSplit(f), foreignDrain(f), foreignRegistration(f), gone} {
		f.Add(o.ID.Kind, o.ID.Name, mustEncode(f, o))
	}
}

// Whatever comes is refused or is an object that travels on as the same, and Peek reads
// what Decode reads.
func FuzzDecodeForeign(f *testing.F) {
	fuzzRows(f)
	f.Fuzz(func(t *testing.T, kind, name string, row []byte) {
		revision, _, deleted, _, peeked := PeekForeign(row)
		o, err := DecodeForeign(ID{kind, "default", name}, row)
		if err != nil {
			return
		}
		if peeked != nil || revision != o.Revision || deleted != o.Deleted {
			t.Fatalf("peeked at %s, %t, %v; decoded %s", revision, deleted, peeked, brief(o))
		}
		again, err := DecodeForeign(o.ID, mustEncode(t, o))
		if err != nil || again.differs(o) != "" || again.VersionSum() != o.VersionSum() {
			t.Fatalf("passed on as %s, %v; want %s", brief(again), err, brief(o))
		}
	})
}

// Whatever is merged in whatever order, two versions end alike, and the store stays
// consistent.
func FuzzStoreMerge(f *testing.F) {
	wall := newTestClock()
	s, err := Open(Options{Dir: f.TempDir(), Now: wall.Now, AllowUnresolved: true})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = s.Close() })
	fuzzRows(f)
	f.Fuzz(func(t *testing.T, kind, name string, row []byte) {
		o, err := DecodeForeign(ID{kind, "default", name}, row)
		if err != nil {
			return
		}
		mine := s.Snapshot().Find(o.ID)
		result, err := s.Merge(t.Context(), []*Object{o})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.CheckConsistency(); err != nil {
			t.Fatal(err)
		}
		now := s.Snapshot().Find(o.ID)
		if len(result.Refused) > 0 {
			if now != mine {
				t.Fatal("what was refused has changed something")
			}
			return
		}
		if mine != nil && mine.Revision == o.Revision {
			return // under one revision there is one content, unless somebody forges it
		}
		if want, _ := Merge(o, mine); now != nil && now.VersionSum() != want.VersionSum() {
			t.Fatalf("there is %s, the other way %s", brief(now), brief(want))
		}
	})
}
