package store

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// maxDrains bounds the drains of one Backend.
const maxDrains = maxDiscovered

// Drain is since when an endpoint gets no new RPCs, and how long open ones may go on.
type Drain struct {
	Endpoint string    `json:"endpoint,omitempty"` // its address; empty is the whole Backend
	Since    time.Time `json:"since,omitzero"`     // zero: it is not known any more
	Grace    Duration  `json:"grace,omitzero"`     // zero: as long as they like
	By       string    `json:"by,omitempty"`
}

// Deadline is when the RPCs that are open still are ended; zero for never.
func (d *Drain) Deadline() time.Time {
	if d.Grace == 0 {
		return time.Time{}
	}
	return d.Since.Add(time.Duration(d.Grace))
}

// same tells whether both say the same, whoever said it and when.
func (d Drain) same(other Drain) bool { return d.Endpoint == other.Endpoint && d.Grace == other.Grace }

// before tells whether d ends RPCs earlier than other does.
func (d *Drain) before(other *Drain) bool {
	mine, theirs := d.Deadline(), other.Deadline()
	return !mine.IsZero() && (theirs.IsZero() || mine.Before(theirs))
}

// drainOf is the drain of that very address, nil when there is none.
func drainOf(drains []Drain, endpoint string) *Drain {
	at, found := slices.BinarySearchFunc(drains, endpoint, func(d Drain, endpoint string) int {
		return strings.Compare(d.Endpoint, endpoint)
	})
	if !found {
		return nil
	}
	return &drains[at]
}

// drainFor is what holds for an endpoint: its own drain or that of the whole Backend,
// of both the one that ends RPCs first.
func drainFor(drains []Drain, endpoint string) *Drain {
	whole, own := drainOf(drains, ""), drainOf(drains, endpoint)
	if own == nil || whole != nil && whole.before(own) {
		return whole
	}
	return own
}

// DrainOf is what an operator has said of an endpoint that a name server has told of;
// nil when that is nothing. It is for a Backend of an effective set.
func (s *BackendSpec) DrainOf(address string) *Drain { return drainFor(s.Drains, address) }

// DrainOf is the drain of an endpoint of the Backend that has this state: its own, or
// that of the whole Backend; nil when there is neither.
func (s State) DrainOf(address string) *Drain { return drainFor(s.Drains, address) }

// normalDrains has each address once, the last word on it, in order.
func normalDrains(drains []Drain) []Drain {
	if len(drains) == 0 {
		return nil
	}
	said := make(map[string]Drain, len(drains))
	for _, d := range drains {
		d.Since = d.Since.UTC().Round(0)
		said[d.Endpoint] = d
	}
	return slices.SortedFunc(maps.Values(said), func(a, b Drain) int { return strings.Compare(a.Endpoint, b.Endpoint) })
}

// DrainEdit is what an operator changes of the drains of one Backend.
type DrainEdit struct {
	Endpoints []string      // addresses; none means the whole Backend
	Grace     time.Duration // for open RPCs; zero: as long as they like
	Undo      bool          // take RPCs again; of the whole Backend, all of its endpoints too
	At        time.Time     // of the edit
	By        string        // its actor
}

// EditDrain is the state of a Backend after an edit. The error is of type Faults. What is
// drained already, with the same grace, stays as it is. An endpoint that a process has
// to register is looked for when the state is written.
func EditDrain(backend *Backend, cur State, edit DrainEdit) (State, error) {
	var list faultList
	if edit.Grace != 0 && (edit.Grace < time.Millisecond || edit.Grace > maxTimeout) {
		list.add(Position{}, "grace", "%s is out of range, want %s to %s", edit.Grace, Duration(time.Millisecond), Duration(maxTimeout))
	}
	static := len(edit.Endpoints) > 0 && backend.Spec.DNS == nil && backend.Spec.Registration == nil
	addresses := make([]string, len(edit.Endpoints))
	declared := backend.Spec.addresses()
	for i, address := range edit.Endpoints {
		addresses[i] = address
		field := fmt.Sprintf("endpoints[%d]", i)
		known := declared[address]
		switch problem := checkEndpoint(address); {
		case known || edit.Undo && drainOf(cur.Drains, address) != nil:
		case static && !edit.Undo:
			list.add(Position{}, field, "%s: %s has no endpoint of that address", quote(address), ResourceID(backend))
		case problem != "":
			list.add(Position{}, field, "%s: %s", quote(address), problem)
		default:
			addresses[i] = NormalAddress(address)
		}
	}
	if faults := list.faults(); len(faults) > 0 {
		return cur, faults
	}
	if edit.Undo && len(edit.Endpoints) == 0 {
		cur.Drains = nil
		return cur, nil
	}
	if len(addresses) == 0 {
		addresses = []string{""}
	}
	cur.Drains = edit.drains(normalDrains(cur.Drains), addresses)
	return cur, nil
}

// drains are what becomes of old, which is in normal form, by an edit of addresses.
func (e *DrainEdit) drains(old []Drain, addresses []string) []Drain {
	if e.Undo {
		return normalDrains(slices.DeleteFunc(old, func(d Drain) bool { return slices.Contains(addresses, d.Endpoint) }))
	}
	grace, all := Duration(e.Grace.Truncate(time.Millisecond)), slices.Clone(old)
	for _, address := range addresses {
		if was := drainOf(old, address); was == nil || was.Grace != grace {
			all = append(all, Drain{Endpoint: address, Since: e.At, Grace: grace, By: e.By})
		}
	}
	return normalDrains(all)
}
