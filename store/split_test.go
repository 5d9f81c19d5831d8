package store

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func ptr[T any](v T) *T { return &v }

const twoRules = `apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: cart}
spec:
  rules:
  - name: all
    backendRefs:
    - {group: sluice.dev, kind: Backend, name: cart-v1, weight: 90}
    - {group: sluice.dev, kind: Backend, name: cart-v2, weight: 10}
    - {group: sluice.dev, kind: Backend, name: cart-v1, namespace: other, weight: 0}
  - matches: [{method: {service: shop.v1.Cart}}]
    backendRefs:
    - {group: sluice.dev, kind: Backend, name: cart-v2}
`

func TestEditSplit(t *testing.T) {
	route := parseText(t, twoRules).GRPCRoutes[0]
	at := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	shares := []Share{{"default/cart-v1", 80}, {"default/cart-v2", 20}}
	sides := plainSides(shares)
	pin := Pin{"x-user", "Alice", "default/cart-v2"}
	tests := []struct {
		name      string
		cur       State
		rule      string
		edit      SplitEdit
		want      State
		wantFault string
	}{
		{
			name: "shares by name", rule: "all", edit: SplitEdit{Shares: []Share{{"cart-v1", 80}, {"cart-v2", 20}}},
			want: State{Splits: []RuleSplit{{Rule: "all", Shares: shares, Sides: sides}}},
		},
		{
			name: "shares by key", rule: "0", edit: SplitEdit{Shares: shares},
			want: State{Splits: []RuleSplit{{Rule: "all", Shares: shares, Sides: sides}}},
		},
		{
			name: "of another namespace", rule: "all", edit: SplitEdit{Shares: []Share{{"other/cart-v1", 1}}},
			want: State{Splits: []RuleSplit{{Rule: "all", Shares: []Share{{"other/cart-v1", 1}}, Sides: []Side{{space, "other/cart-v1"}}}}},
		},
		{
			name: "a rule without a name", rule: "1", edit: SplitEdit{Shares: []Share{{"cart-v2", 1}}},
			want: State{Splits: []RuleSplit{{Rule: "1", Shares: []Share{{"default/cart-v2", 1}}, Sides: []Side{{space, "default/cart-v2"}}}}},
		},
		{
			name: "a pin", rule: "all", edit: SplitEdit{Pins: []Pin{{"X-User", "Alice", "cart-v2"}}},
			want: State{Splits: []RuleSplit{{Rule: "all", Pins: []Pin{pin}, Sides: plainSides(declaredShares(route, route.Spec.Rules[0].BackendRefs))}}},
		},
		{
			name: "weights stay with a pin", rule: "all", cur: State{Splits: []RuleSplit{{Rule: "all", Shares: shares, Sides: sides}}},
			edit: SplitEdit{Pins: []Pin{pin}},
			want: State{Splits: []RuleSplit{{Rule: "all", Shares: shares, Pins: []Pin{pin}, Sides: sides}}},
		},
		{
			name: "pins are taken away", rule: "all", cur: State{Splits: []RuleSplit{{Rule: "all", Shares: shares, Pins: []Pin{pin}, Sides: sides}}},
			edit: SplitEdit{ClearPins: true},
			want: State{Splits: []RuleSplit{{Rule: "all", Shares: shares, Sides: sides}}},
		},
		{
			name: "nothing is left", rule: "all", cur: State{Splits: []RuleSplit{{Rule: "all", Pins: []Pin{pin}}}},
			edit: SplitEdit{ClearPins: true}, want: State{},
		},
		{
			name: "sticky", rule: "1", edit: SplitEdit{Sticky: ptr("X-User")},
			want: State{Splits: []RuleSplit{{Rule: "1", Sticky: "x-user", Sides: []Side{{space, "default/cart-v2"}}}}},
		},
		{
			name: "turns", rule: "1", cur: State{Splits: []RuleSplit{{Rule: "1", Sticky: "x-user"}}}, edit: SplitEdit{Sticky: ptr("")},
			want: State{Splits: []RuleSplit{{Rule: "1", Turns: true, Sides: []Side{{space, "default/cart-v2"}}}}},
		},
		{
			name: "spill over", rule: "1", edit: SplitEdit{SpillOver: ptr(false)},
			want: State{Splits: []RuleSplit{{Rule: "1", SpillOver: ptr(false), Sides: []Side{{space, "default/cart-v2"}}}}},
		},
		{
			name: "reset", rule: "1", cur: State{Disabled: true, Splits: []RuleSplit{{Rule: "1", Sticky: "x-user", Pins: []Pin{pin}}}},
			edit: SplitEdit{Reset: true}, want: State{Disabled: true},
		},
		{
			name: "reset and something else", rule: "1", cur: State{Splits: []RuleSplit{{Rule: "1", Sticky: "x-user", Pins: []Pin{pin}}}},
			edit: SplitEdit{Reset: true, SpillOver: ptr(true)},
			want: State{Splits: []RuleSplit{{Rule: "1", SpillOver: ptr(true), Sides: []Side{{space, "default/cart-v2"}}}}},
		},
		{
			name: "other rules stay", rule: "1", cur: State{Splits: []RuleSplit{{Rule: "all", Shares: shares, Sides: sides}}}, edit: SplitEdit{Reset: true},
			want: State{Splits: []RuleSplit{{Rule: "all", Shares: shares, Sides: sides}}},
		},

		{name: "which rule", edit: SplitEdit{Reset: true}, wantFault: "more than one rule, or none: name the rule; it has all, 1"},
		{name: "no such rule", rule: "2", edit: SplitEdit{Reset: true}, wantFault: `rule: GRPCRoute default/cart has no rule "2": it has all, 1`},
		{name: "no such number", rule: "01", edit: SplitEdit{Reset: true}, wantFault: "no rule"},
		{name: "no such backend", rule: "1", edit: SplitEdit{Shares: []Share{{"cart-v1", 1}}}, wantFault: `shares[0].backend: "cart-v1" is no backend of rule 1`},
		{name: "one is forgotten", rule: "all", edit: SplitEdit{Shares: []Share{{"cart-v2", 20}}, Whole: true}, wantFault: "shares: default/cart-v1 has weight 90 and is not named"},
		{name: "all weights 0", rule: "all", edit: SplitEdit{Shares: []Share{{"cart-v1", 0}, {"cart-v2", 0}}}, wantFault: "shares: every weight is 0"},
		{name: "too heavy", rule: "all", edit: SplitEdit{Shares: []Share{{"cart-v1", 1_000_001}}}, wantFault: "shares[0].weight: 1000001 is out of range"},
		{name: "twice", rule: "all", edit: SplitEdit{Shares: []Share{{"cart-v1", 1}, {"default/cart-v1", 1}}}, wantFault: "shares[1].backend: \"default/cart-v1\" stands there twice"},
		{name: "a pin to nowhere", rule: "1", edit: SplitEdit{Pins: []Pin{{"a", "b", "cart-v1"}}}, wantFault: "pins[0].backend"},
		{name: "a pin by no header", rule: "1", edit: SplitEdit{Pins: []Pin{{":path", "b", "cart-v2"}}}, wantFault: "pins[0].header"},
		{name: "a pin of no value", rule: "1", edit: SplitEdit{Pins: []Pin{{"a", "", "cart-v2"}}}, wantFault: "pins[0].value"},
		{name: "a pin with a NUL", rule: "1", edit: SplitEdit{Pins: []Pin{{"a", "\x00", "cart-v2"}}}, wantFault: "pins[0].value"},
		{name: "a pin twice", rule: "1", edit: SplitEdit{Pins: []Pin{{"a", "b", "cart-v2"}, {"A", "b", "cart-v2"}}}, wantFault: "pins[1]: a pin of"},
		{name: "too many pins", rule: "1", edit: SplitEdit{Pins: make([]Pin, 101)}, wantFault: "101 pins, limit 100"},
		{name: "sticky by no header", rule: "1", edit: SplitEdit{Sticky: ptr("a b")}, wantFault: "sticky:"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.edit.At, test.edit.By = at, "alice"
			before := fmt.Sprintf("%+v", test.cur)
			got, err := EditSplit(route, test.cur, test.rule, test.edit)
			if test.wantFault != "" {
				if _, ok := err.(Faults); !ok || !strings.Contains(err.Error(), test.wantFault) {
					t.Errorf("error %v, want %q", err, test.wantFault)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !got.equal(test.want) {
				t.Errorf("got  %+v\nwant %+v", got, test.want)
			}
			if after := fmt.Sprintf("%+v", test.cur); after != before {
				t.Errorf("the state before was changed to %s", after)
			}
			if index := route.RuleIndex(test.rule); index >= 0 {
				if split := got.Split(route.RuleLabel(index)); split != nil && (split.By != "alice" || !split.Since.Equal(at)) {
					t.Errorf("edited by %s at %s", split.By, split.Since)
				}
			}
		})
	}
}

func TestRuleIndexOfTheOnlyRule(t *testing.T) {
	route := parseText(t, splitText("cart", "a=1")).GRPCRoutes[0]
	for label, want := range map[string]int{"": 0, "all": 0, "0": 0, "1": -1, "-1": -1, "x": -1} {
		if got := route.RuleIndex(label); got != want {
			t.Errorf("RuleIndex(%q) = %d, want %d", label, got, want)
		}
	}
}

// A rule without a name is called by its number, unless another has that for a name.
func TestRuleLabelsAreUnambiguous(t *testing.T) {
	route := parseText(t, routeText(`{rules: [{}, {name: "0"}, {name: x}, {}]}`)).GRPCRoutes[0]
	for i, want := range []string{"#0", "0", "x", "3"} {
		if got := route.RuleLabel(i); got != want || route.RuleIndex(got) != i {
			t.Errorf("rule %d is called %q, want %q; that is rule %d", i, got, want, route.RuleIndex(got))
		}
	}
	if got := route.RuleIndex("2"); got != 2 {
		t.Errorf("number 2 is rule %d", got)
	}
}

// While a rule is sticky, whatever changes its weights moves only those who must:
// splits, resets, and declarations anew, through a policy's stickiness as well.
func TestSplitsMoveOnlyWhoMust(t *testing.T) {
	for _, by := range []string{"split", "policy"} {
		t.Run(by, func(t *testing.T) {
			s := openStore(t, Options{})
			names := []string{"v0", "v1", "v2", "v3"}
			declare := func(weights []uint32) string {
				shares := make([]string, len(names))
				for i, name := range names {
					shares[i] = fmt.Sprintf("%s=%d", name, weights[i])
				}
				return splitText("cart", shares...)
			}
			applyText(t, s, declare([]uint32{1, 1, 1, 1}))
			if by == "policy" {
				applyText(t, s, strings.ReplaceAll(policyText(", split: {sticky: {header: x-user}}"), "name: r}", "name: cart}"))
			} else {
				mustWrite(t, s, Txn{Ops: []Op{splitOp(cart, SplitEdit{Sticky: ptr("x-user")})}})
			}
			inForce := func() ([]Side, []Share) {
				route := s.Snapshot().Effective().GRPCRoute("default/cart")
				rule := &route.Spec.Rules[0]
				if rule.Steering.Sticky != "x-user" {
					t.Fatalf("steering %+v", rule.Steering)
				}
				shares := declaredShares(route, rule.BackendRefs) // with the weights in force
				if len(rule.Steering.Sides) > 0 {
					return rule.Steering.Sides, shares
				}
				return plainSides(shares), shares
			}
			rng := rand.New(rand.NewPCG(9, 9))
			weights := func() []uint32 {
				w := make([]uint32, len(names))
				for i := range w {
					w[i] = rng.Uint32N(20)
				}
				w[rng.IntN(len(w))] = 1
				return w
			}
			before, _ := inForce()
			for range 60 {
				switch rng.IntN(4) {
				case 0:
					applyText(t, s, declare(weights()))
				case 1:
					var shares []Share
					for i, w := range weights() {
						if rng.IntN(4) > 0 || w == 1 {
							shares = append(shares, Share{names[i], w})
						}
					}
					_, err := s.Write(t.Context(), Txn{Ops: []Op{splitOp(cart, SplitEdit{Shares: shares})}})
					if err != nil && !strings.Contains(err.Error(), "every weight is 0") {
						t.Fatal(err)
					}
				case 2:
					edit := SplitEdit{Reset: true}
					if by == "split" {
						edit.Sticky = ptr("x-user")
					}
					mustWrite(t, s, Txn{Ops: []Op{splitOp(cart, edit)}})
				case 3:
					s = reopen(t, s)
				}
				after, shares := inForce()
				checkSides(t, after)
				has, had, want := sizes(after), sizes(before), sizes(plainSides(shares))
				var least uint64
				for _, name := range names {
					k := "default/" + name
					if has[k] != want[k] {
						t.Fatalf("%s has %d, want %d", k, has[k], want[k])
					}
					least += has[k] - min(has[k], had[k])
				}
				if n := moved(before, after); n != least {
					t.Fatalf("%d moved, %d had to", n, least)
				}
				before = after
			}
		})
	}
}

// A rule that is not sticky has no sides to remember, and a route that nobody has
// touched no state at all.
func TestSidesAreKeptOnlyWhileSticky(t *testing.T) {
	s := openStore(t, Options{})
	applyText(t, s, splitText("cart", "cart-v1=90", "cart-v2=10"))
	mustWrite(t, s, Txn{Ops: []Op{splitOp(cart, SplitEdit{Shares: []Share{{"cart-v1", 50}, {"cart-v2", 50}}})}})
	if split := mustGet(t, s, cart).State.Split("all"); split == nil || len(split.Sides) != 0 {
		t.Errorf("split %+v", split)
	}
	mustWrite(t, s, Txn{Ops: []Op{splitOp(cart, SplitEdit{Reset: true})}})
	if state := mustGet(t, s, cart).State; !reflect.DeepEqual(state, State{}) {
		t.Errorf("state %+v", state)
	}
}

func TestSplitsOutliveWhatTheRuleLoses(t *testing.T) {
	s := openStore(t, Options{})
	applyText(t, s, splitText("cart", "v1=1", "v2=1", "v3=1"))
	mustWrite(t, s, Txn{Ops: []Op{splitOp(cart, SplitEdit{
		Shares: []Share{{"v1", 10}, {"v2", 30}}, Pins: []Pin{{"a", "b", "v2"}, {"a", "c", "v1"}}, Sticky: ptr("x-user"),
	})}})
	rule := func() GRPCRouteRule { return s.Snapshot().Effective().GRPCRoute("default/cart").Spec.Rules[0] }
	weights := func() (list []uint32) {
		for _, ref := range rule().BackendRefs {
			list = append(list, ref.Weight)
		}
		return list
	}
	if got := weights(); !slices.Equal(got, []uint32{10, 30, 0}) {
		t.Errorf("weights %v", got)
	}
	// A backend that goes takes its share and its pins with it.
	applyText(t, s, splitText("cart", "v1=1", "v3=1"))
	if got := weights(); !slices.Equal(got, []uint32{10, 0}) {
		t.Errorf("weights %v", got)
	}
	if got := rule().Steering; len(got.Pins) != 1 || got.Pins[0].Backend != "default/v1" {
		t.Errorf("steering %+v", got)
	}
	// Nothing is left of the shares: what is declared holds.
	applyText(t, s, splitText("cart", "v3=5", "v4=6"))
	if got := weights(); !slices.Equal(got, []uint32{5, 6}) || rule().Steering.Overridden {
		t.Errorf("weights %v, steering %+v", got, rule().Steering)
	}
	// And when it comes back, so does its share.
	applyText(t, s, splitText("cart", "v2=5", "v4=6"))
	if got := weights(); !slices.Equal(got, []uint32{30, 0}) {
		t.Errorf("weights %v", got)
	}
}

// Of several references to one backend the first has what the split gives it: they
// may differ in their filters, and a split does not tell them apart.
func TestSplitsGiveTheFirstReferenceItsShare(t *testing.T) {
	s := openStore(t, Options{})
	set := parseText(t, splitText("cart", "v1=5", "v2=5"))
	rule := &set.GRPCRoutes[0].Spec.Rules[0]
	rule.BackendRefs = append(rule.BackendRefs, rule.BackendRefs[0])
	mustWrite(t, s, Txn{Ops: applyOps(set)})
	mustWrite(t, s, Txn{Ops: []Op{splitOp(cart, SplitEdit{Shares: []Share{{"v1", 8}, {"v2", 2}}})}})
	refs := s.Snapshot().Effective().GRPCRoute("default/cart").Spec.Rules[0].BackendRefs
	if refs[0].Weight != 8 || refs[1].Weight != 2 || refs[2].Weight != 0 {
		t.Errorf("weights %d, %d, %d; want 8, 2, 0", refs[0].Weight, refs[1].Weight, refs[2].Weight)
	}
}
