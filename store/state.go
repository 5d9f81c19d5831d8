package store

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"time"
)

// State is what lies beside the declaration of an object: the doings of operators. A
// reload of the declaration keeps it.
type State struct {
	Splits   []RuleSplit `json:"splits,omitempty"`   // of a route
	Disabled bool        `json:"disabled,omitempty"` // a route
	// Drains are of a Backend, in the order of the addresses, one for each: the whole
	// comes first.
	Drains []Drain `json:"drains,omitempty"`
}

// UnmarshalJSON reads also what was written before a drain knew when it began.
func (s *State) UnmarshalJSON(text []byte) error {
	type fields State
	var old struct {
		*fields
		Drained          bool     `json:"drained"`
		DrainedEndpoints []string `json:"drainedEndpoints"`
	}
	*s = State{}
	old.fields = (*fields)(s)
	if err := json.Unmarshal(text, &old); err != nil {
		return err
	}
	if old.Drained {
		s.Drains = append(s.Drains, Drain{})
	}
	for _, address := range old.DrainedEndpoints {
		s.Drains = append(s.Drains, Drain{Endpoint: address})
	}
	return nil
}

// RuleSplit is how the RPCs of one rule are shared out, in place of what it declares.
type RuleSplit struct {
	Rule   string  `json:"rule"` // its name, or its number from 0 when it has none
	Shares []Share `json:"shares,omitempty"`
	Pins   []Pin   `json:"pins,omitempty"`
	// Sticky is the metadata, in lower case, whose value decides; empty means what the
	// policy of the rule says, or turns when Turns is set.
	Sticky string `json:"sticky,omitempty"`
	Turns  bool   `json:"turns,omitempty"`
	// SpillOver is nil for what the policy of the rule says.
	SpillOver *bool `json:"spillOver,omitempty"`
	// Sides are which values of Sticky belong to which backend. They follow the
	// weights with as little movement as there can be, declared weights included.
	Sides []Side    `json:"sides,omitempty"`
	Since time.Time `json:"since,omitzero"` // of the last edit
	By    string    `json:"by,omitempty"`   // the actor of it
}

// Share is the weight of one backend.
type Share struct {
	Backend string `json:"backend"` // its key, "namespace/name"
	Weight  uint32 `json:"weight"`
}

// Overridden tells whether an operator has changed anything of the rule. A RuleSplit
// that has only Sides remembers where sticky values belong, and changes nothing.
func (s *RuleSplit) Overridden() bool {
	return len(s.Shares) > 0 || len(s.Pins) > 0 || s.Sticky != "" || s.Turns || s.SpillOver != nil
}

// Split is the split of a rule, by its label; nil when it has none.
func (s State) Split(rule string) *RuleSplit {
	for i := range s.Splits {
		if s.Splits[i].Rule == rule {
			return &s.Splits[i]
		}
	}
	return nil
}

// withSplit is the state with another split of that rule; it shares nothing with s
// that a caller could change.
func (s State) withSplit(split RuleSplit) State {
	s = s.withoutSplit(split.Rule)
	s.Splits = append(s.Splits, split)
	return s
}

func (s State) withoutSplit(rule string) State {
	kept := make([]RuleSplit, 0, len(s.Splits)+1)
	for _, split := range s.Splits {
		if split.Rule != rule {
			kept = append(kept, split)
		}
	}
	s.Splits = kept
	return s
}

// identical compares all.
func (s State) identical(other State) bool {
	same := func(a, b Drain) bool { return a.same(b) && a.Since.Equal(b.Since) && a.By == b.By }
	return s.equal(other) && slices.EqualFunc(s.Drains, other.Drains, same) &&
		slices.EqualFunc(s.Splits, other.Splits, func(a, b RuleSplit) bool { return a.Since.Equal(b.Since) && a.By == b.By })
}

// equal compares all but who set a split or a drain, and when.
func (s State) equal(other State) bool {
	if s.Disabled != other.Disabled || len(s.Splits) != len(other.Splits) || !slices.EqualFunc(s.Drains, other.Drains, Drain.same) {
		return false
	}
	for i, split := range s.Splits {
		theirs := other.Splits[i]
		split.Since, split.By, theirs.Since, theirs.By = zeroTime, "", zeroTime, ""
		if !reflect.DeepEqual(split, theirs) {
			return false
		}
	}
	return true
}

// normal is the state as it is kept: in an order, without what says nothing.
func (s State) normal() State {
	s.Splits = slices.Clone(s.Splits)
	for i := range s.Splits {
		s.Splits[i] = s.Splits[i].normal()
	}
	s.Splits = slices.DeleteFunc(s.Splits, func(split RuleSplit) bool {
		return !split.Overridden() && len(split.Sides) == 0
	})
	slices.SortStableFunc(s.Splits, func(a, b RuleSplit) int { return strings.Compare(a.Rule, b.Rule) })
	if len(s.Splits) == 0 {
		s.Splits = nil
	}
	s.Drains = normalDrains(s.Drains)
	return s
}

func (s RuleSplit) normal() RuleSplit {
	s.Shares, s.Pins, s.Sides = slices.Clone(s.Shares), slices.Clone(s.Pins), slices.Clone(s.Sides)
	if len(s.Shares) == 0 {
		s.Shares = nil
	}
	if len(s.Pins) == 0 {
		s.Pins = nil
	}
	if len(s.Sides) == 0 {
		s.Sides = nil
	}
	s.Since = s.Since.UTC().Round(0)
	return s
}

var zeroTime time.Time
