package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/store/disk"
)

var drainBegan = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// two is a Backend of two static endpoints, with fields beside them.
func two(t *testing.T, fields string) *Backend {
	t.Helper()
	return parseText(t, "apiVersion: sluice.dev/v1alpha1\nkind: Backend\nmetadata: {name: cart}\n"+
		"spec: {endpoints: [{address: 'a:1'}, {address: '10.0.0.1:1'}]"+fields+"}\n").Backends[0]
}

func TestEditDrain(t *testing.T) {
	at := drainBegan
	old := State{Drains: []Drain{{Endpoint: "a:1", Since: at.Add(-time.Hour), By: "bob"}}}
	tests := []struct {
		name   string
		fields string // of the Backend
		state  State
		edit   DrainEdit
		want   []Drain
		faults string
	}{
		{"the whole", "", State{}, DrainEdit{Grace: time.Minute}, []Drain{{Since: at, Grace: Duration(time.Minute), By: "alice"}}, ""},
		{"one endpoint", "", State{}, DrainEdit{Endpoints: []string{"a:1"}}, []Drain{{Endpoint: "a:1", Since: at, By: "alice"}}, ""},
		{"two, in order", "", State{}, DrainEdit{Endpoints: []string{"a:1", "10.0.0.1:1", "a:1"}}, []Drain{{Endpoint: "10.0.0.1:1", Since: at, By: "alice"}, {Endpoint: "a:1", Since: at, By: "alice"}}, ""},
		{"what is drained already", "", old, DrainEdit{Endpoints: []string{"a:1"}}, old.Drains, ""},
		{"with another grace", "", old, DrainEdit{Endpoints: []string{"a:1"}, Grace: time.Second}, []Drain{{Endpoint: "a:1", Since: at, Grace: Duration(time.Second), By: "alice"}}, ""},
		{"the whole beside one", "", old, DrainEdit{}, append([]Drain{{Since: at, By: "alice"}}, old.Drains...), ""},
		{"back", "", old, DrainEdit{Endpoints: []string{"a:1"}, Undo: true}, nil, ""},
		{"back, what was not drained", "", old, DrainEdit{Endpoints: []string{"10.0.0.1:1"}, Undo: true}, old.Drains, ""},
		{"all back", "", State{Drains: append([]Drain{{}}, old.Drains...)}, DrainEdit{Undo: true}, nil, ""},
		{"what there is not", "", old, DrainEdit{Endpoints: []string{"a:1", "b:1"}}, old.Drains, `endpoints[1]: "b:1": Backend default/cart has no endpoint of that address`},
		{"what a name server tells", ", dns: {srv: a}", State{}, DrainEdit{Endpoints: []string{"[2001:DB8::0:1]:80"}}, []Drain{{Endpoint: "[2001:db8::1]:80", Since: at, By: "alice"}}, ""},
		{"what no name server tells", ", dns: {srv: a}", State{}, DrainEdit{Endpoints: []string{"0.0.0.0:80"}}, nil, `endpoints[0]: "0.0.0.0:80": want the address of one machine: this one stands for every address of its own`},
		{"what may be registered", ", registration: {}", State{}, DrainEdit{Endpoints: []string{"10.0.0.9:1"}}, []Drain{{Endpoint: "10.0.0.9:1", Since: at, By: "alice"}}, ""},
		{"a grace of nothing", "", State{}, DrainEdit{Grace: time.Microsecond}, nil, "grace: 1µs is out of range, want 1ms to 99999h"},
		{"a grace before now", "", State{}, DrainEdit{Grace: -time.Second}, nil, "grace: -1s is out of range, want 1ms to 99999h"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.edit.At, tt.edit.By = at, "alice"
			before := slices.Clone(tt.state.Drains)
			got, err := EditDrain(two(t, tt.fields), tt.state, tt.edit)
			if (err == nil) != (tt.faults == "") || err != nil && err.Error() != tt.faults {
				t.Fatalf("error %v, want %q", err, tt.faults)
			}
			if !reflect.DeepEqual(got.normal().Drains, tt.want) {
				t.Errorf("got %+v, want %+v", got.Drains, tt.want)
			}
			if !slices.Equal(tt.state.Drains, before) {
				t.Errorf("the state it was given became %+v", tt.state.Drains)
			}
		})
	}
}

func TestDrainThatEndsRPCsFirstHolds(t *testing.T) {
	whole := Drain{Since: drainBegan, Grace: Duration(time.Minute)}
	for _, tt := range []struct {
		name string
		own  Drain
		want time.Time
	}{
		{"its own never does", Drain{Since: drainBegan}, drainBegan.Add(time.Minute)},
		{"its own does later", Drain{Since: drainBegan, Grace: Duration(time.Hour)}, drainBegan.Add(time.Minute)},
		{"its own does earlier", Drain{Since: drainBegan.Add(time.Second), Grace: Duration(time.Second)}, drainBegan.Add(2 * time.Second)},
	} {
		tt.own.Endpoint = "a:1"
		state := State{Drains: []Drain{whole, tt.own}}
		if got := state.DrainOf("a:1").Deadline(); !got.Equal(tt.want) {
			t.Errorf("%s: ends at %v, want %v", tt.name, got, tt.want)
		}
		if got := state.DrainOf("b:1"); got.Endpoint != "" || !got.Deadline().Equal(drainBegan.Add(time.Minute)) {
			t.Errorf("%s: another endpoint has %+v", tt.name, got)
		}
	}
	if d := (State{Drains: []Drain{{Endpoint: "a:1"}}}).DrainOf("a:1"); !d.Deadline().IsZero() {
		t.Errorf("without a grace it ends at %v", d.Deadline())
	}
	if d := (State{}).DrainOf("a:1"); d != nil {
		t.Errorf("nothing is drained, but for %+v", d)
	}
}

func TestEffectiveTellsOfDrains(t *testing.T) {
	s := openStore(t, Options{})
	mustWrite(t, s, Txn{Ops: []Op{{Apply: two(t, ", dns: {name: cart.internal, port: 80}")}}})
	id := ID{BackendKind, "default", "cart"}
	drain := func(edit DrainEdit) {
		t.Helper()
		edit.At = drainBegan
		mustWrite(t, s, Txn{Ops: []Op{{ID: id, State: func(state State, o *Object) (State, error) {
			return EditDrain(o.Resource.(*Backend), state, edit)
		}}}})
	}
	drain(DrainEdit{Endpoints: []string{"a:1", "10.0.0.7:80"}, Grace: time.Minute})
	for range 2 {
		spec := &s.Snapshot().Effective().Backends[0].Spec
		if e := spec.Endpoints[0]; e.Weight != 0 || e.Drain == nil || e.Drain.Deadline() != drainBegan.Add(time.Minute) {
			t.Errorf("what is drained is %+v", e)
		}
		if e := spec.Endpoints[1]; e.Weight != 1 || e.Drain != nil {
			t.Errorf("what is not drained is %+v", e)
		}
		if len(spec.Drains) != 1 || spec.DrainOf("10.0.0.7:80") == nil || spec.DrainOf("10.0.0.8:80") != nil {
			t.Errorf("of what a name server tells, drained are %+v", spec.Drains)
		}
		s = reopen(t, s)
	}
	drain(DrainEdit{})
	spec := &s.Snapshot().Effective().Backends[0].Spec
	if spec.Endpoints[1].Weight != 0 || spec.DrainOf("10.0.0.8:80") == nil {
		t.Errorf("drained as a whole: %+v", spec)
	}
	before := s.Snapshot()
	drain(DrainEdit{})
	if s.Snapshot() != before {
		t.Error("draining what is drained is a change")
	}
	drain(DrainEdit{Undo: true})
	if got := s.Snapshot().Effective().Backends[0]; got != mustGet(t, s, id).Resource {
		t.Errorf("undone, it is %+v", got.Spec)
	}
}

// A registered endpoint can be drained, one that nobody has registered cannot.
func TestDrainWantsEndpointsThatAreThere(t *testing.T) {
	s := openStore(t, Options{})
	mustWrite(t, s, Txn{Ops: []Op{{Apply: two(t, ", registration: {}")}, {Apply: registration("cart", "10.0.0.9:1")}}})
	id := ID{BackendKind, "default", "cart"}
	mustWrite(t, s, Txn{Ops: []Op{setState(id, State{Drains: []Drain{{Endpoint: "10.0.0.9:1"}}})}})
	if e := s.Snapshot().Effective().Backends[0].Spec.Endpoints[2]; e.Source != SourceRegistered || e.Weight != 0 || e.Drain == nil {
		t.Errorf("drained is %+v", e)
	}
	_, err := s.Write(t.Context(), Txn{Ops: []Op{setState(id, State{Drains: []Drain{{Endpoint: "10.0.0.8:1"}}})}})
	if err == nil || !strings.Contains(err.Error(), `no endpoint "10.0.0.8:1"`) {
		t.Errorf("nobody has registered it: %v", err)
	}
	many := make([]Drain, maxDrains+1)
	for i := range many {
		many[i].Endpoint = "10.0.0.9:" + strings.Repeat("1", 1+i%5)
	}
	var list faultList
	list.found = (&plan{}).checkState(mustGet(t, s, id), State{Drains: many})
	if got := list.found.Error(); got != "endpoints: Backend default/cart: 10001 endpoints are drained, limit 10000" {
		t.Errorf("too many: %s", got)
	}
}

// Rows that were written when a drain was a word and a list of addresses.
func TestStateReadsDrainsOfEarlierVersions(t *testing.T) {
	for text, want := range map[string]State{
		`{}`:               {},
		`{"drained":true}`: {Drains: []Drain{{}}},
		`{"drained":true,"drainedEndpoints":["a:1","b:1"],"disabled":true}`: {Disabled: true, Drains: []Drain{{}, {Endpoint: "a:1"}, {Endpoint: "b:1"}}},
		`{"drains":[{"endpoint":"a:1","since":"2026-03-01T12:00:00Z","grace":"30s","by":"bob"}]}`: {
			Drains: []Drain{{"a:1", drainBegan, Duration(30 * time.Second), "bob"}},
		},
	} {
		var got State
		if err := json.Unmarshal([]byte(text), &got); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v, want %+v", text, got, err, want)
		}
		again, err := json.Marshal(got)
		var back State
		if err == nil {
			err = json.Unmarshal(again, &back)
		}
		if err != nil || !reflect.DeepEqual(back, want) || strings.Contains(string(again), "drained") {
			t.Errorf("%s: written as %s, %v", text, again, err)
		}
	}

	s := openStore(t, Options{})
	applyText(t, s, splitText("cart", "cart-v1=90", "cart-v2=10"))
	mustWrite(t, s, Txn{Ops: []Op{setState(cartV1, State{Drains: []Drain{{Endpoint: "cart-v1:1"}}})}})
	err := s.disk.Update(func(tx *disk.Tx) error {
		node, err := readNode(tx)
		if err != nil {
			return err
		}
		node.Format = 1
		row, _, err := tx.Get(objectRows, objectKey(cartV1))
		if err != nil {
			return err
		}
		header, manifest, err := cutPart(row)
		if err != nil {
			return err
		}
		header = bytes.Replace(header, []byte(`{"drains":[{"endpoint":"cart-v1:1"}]}`), []byte(`{"drainedEndpoints":["cart-v1:1"]}`), 1)
		row = append(appendPart(nil, header), manifest...)
		return errors.Join(writeNode(tx, node), tx.Put(objectRows, objectKey(cartV1), row))
	})
	if err != nil {
		t.Fatal(err)
	}
	s = reopen(t, s)
	if got, want := mustGet(t, s, cartV1).State.Drains, []Drain{{Endpoint: "cart-v1:1"}}; !slices.Equal(got, want) {
		t.Errorf("of format 1: drained %+v, want %+v", got, want)
	}
	mustWrite(t, s, Txn{Ops: []Op{setState(cartV1, State{})}})
	err = s.disk.View(func(tx *disk.Tx) error {
		node, err := readNode(tx)
		if node.Format != rowFormat {
			t.Errorf("the next change left format %d", node.Format)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
