package route

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"sluice/store"
)

func rule(weights ...uint32) *Rule { return Compile(split(weights...), nil).Rules()[0] }

func TestRulePicksInTurn(t *testing.T) {
	tests := []struct {
		weights []uint32
		want    string // the first picks; a dash is -1
	}{
		{nil, "---"},
		{[]uint32{0}, "---"},
		{[]uint32{0, 0, 0}, "---"},
		{[]uint32{5}, "000"},
		{[]uint32{0, 7, 0}, "111"},
		{[]uint32{1, 1}, "010101"},
		{[]uint32{1, 0, 1}, "020202"},
		{[]uint32{1, 1, 1}, "102102"},
		{[]uint32{5, 1, 1}, "01000200100020"},
		{[]uint32{1, 5}, "111011111011"},
		{[]uint32{90, 10}, "00000100000000010000"},
		{[]uint32{50, 50}, "0101"},
		{[]uint32{1, 2, 3, 4}, "2313203231"},
	}
	for _, tt := range tests {
		r := rule(tt.weights...)
		var got strings.Builder
		for range tt.want {
			if i := r.Pick(); i < 0 {
				got.WriteByte('-')
			} else {
				fmt.Fprint(&got, i)
			}
		}
		if got.String() != tt.want {
			t.Errorf("%v: got %s, want %s", tt.weights, got.String(), tt.want)
		}
	}
}

// TestRulePicksExactShares slides a window of S/g picks over three periods, and
// looks at every beginning of the sequence: no split is ever far from its share.
func TestRulePicksExactShares(t *testing.T) {
	weights := [][]uint32{
		{90, 10},
		{99, 1},
		{50, 50},
		{34, 33, 33},
		{1, 1},
		{20, 5},
		{25, 25, 25, 25},
		{3, 1, 0, 1},
		{7, 3},
		{1, 2, 3, 4, 5, 6, 7},
		{1, 1000},
		{997, 991},
		{5000, 5001},
		{10, 20, 30, 40, 900},
		{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1},
		{1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768},
		{1_000_000, 1, 999_999},
		{100, 100_000, 1_000_000},
	}
	for _, ws := range weights {
		period := 0
		gcd := uint64(0)
		for _, w := range ws {
			period += int(w)
			gcd = greatestCommonDivisor(gcd, uint64(w))
		}
		sum := period
		period /= int(gcd)
		if sum <= 100 && 100%sum == 0 {
			period = 100
		}
		checkShares(t, ws, sum, period)
	}
}

func checkShares(t *testing.T, ws []uint32, sum, period int) {
	t.Helper()
	r := rule(ws...)
	picks := make([]int, 3*min(period, 500_000))
	for i := range picks {
		picks[i] = r.Pick()
	}
	counts := make([]int, len(ws)) // of all picks so far
	window := make([]int, len(ws)) // of the last period
	worst := 0.0
	for n, i := range picks {
		counts[i]++
		window[i]++
		if n >= period {
			window[picks[n-period]]--
		}
		for j, w := range ws {
			share := float64(w) / float64(sum)
			worst = max(worst, math.Abs(float64(counts[j])-float64(n+1)*share))
			if want := int(w) * period / sum; n >= period-1 && window[j] != want {
				t.Fatalf("%v: picks %d to %d have split %d %d times, want %d", ws, n-period+1, n, j, window[j], want)
			}
		}
	}
	if worst > 1.6 {
		t.Errorf("%v: a split was %.2f picks away from its share, want at most 1.6", ws, worst)
	}
}

func greatestCommonDivisor(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

func TestRulePicksForAllGoroutinesTogether(t *testing.T) {
	r := rule(90, 10)
	const goroutines, each = 8, 1250
	var counts [goroutines][2]int
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for range each {
				counts[g][r.Pick()]++
			}
		})
	}
	wg.Wait()
	var sum [2]int
	for _, c := range counts {
		sum[0] += c[0]
		sum[1] += c[1]
	}
	if sum != [2]int{9000, 1000} {
		t.Errorf("10,000 picks: got %v, want 9000 and 1000", sum)
	}
}

// TestRulePicksOfAnyWeights holds for weights that no store lets through too.
func TestRulePicksOfAnyWeights(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		ws := make([]uint32, 1+rng.IntN(20))
		for i := range ws {
			ws[i] = rng.Uint32() >> rng.IntN(33)
		}
		r := rule(ws...)
		if r.turn != nil {
			r.turn.n.Store(rng.Uint64())
		}
		for range 50 {
			i := r.Pick()
			if i < 0 && slices.Max(ws) > 0 || i >= 0 && ws[i] == 0 || i >= len(ws) {
				t.Fatalf("%v: picked %d", ws, i)
			}
		}
	}
}

func TestCompileCarriesTurnsOver(t *testing.T) {
	pair := func(name, rest string) string {
		return fmt.Sprintf(`%s: rules: [{name: n, backendRefs: [{name: a, weight: 90}, {name: b, weight: 10}]%s}]`, name, rest)
	}
	const taken = 3
	tests := []struct {
		name, next string
		want       uint64 // picks that the rule has behind it
	}{
		{"unchanged", pair("r", ""), taken},
		{"another match", pair("r", ", matches: [{method: {service: s}}]"), taken},
		{"beside another rule", `r: rules: [{}, {name: n, backendRefs: [{name: a, weight: 90}, {name: b, weight: 10}]}]`, taken},
		{"other weights", `r: rules: [{name: n, backendRefs: [{name: a, weight: 9}, {name: b, weight: 1}]}]`, 0},
		{"another backend", `r: rules: [{name: n, backendRefs: [{name: a, weight: 90}, {name: c, weight: 10}]}]`, 0},
		{"another order", `r: rules: [{name: n, backendRefs: [{name: b, weight: 10}, {name: a, weight: 90}]}]`, 0},
		{"another route", pair("s", ""), 0},
		{"another namespace", pair("n/r", ""), 0},
		{"without its name", `r: rules: [{backendRefs: [{name: a, weight: 90}, {name: b, weight: 10}]}]`, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			prev := Compile(parse(t, routes(pair("r", ""))), nil)
			for range taken {
				prev.Rules()[0].Pick()
			}
			next := Compile(parse(t, routes(tt.next)), prev)
			rules := next.Rules()
			last := rules[len(rules)-1]
			if got := last.turn.n.Load(); got != tt.want {
				t.Errorf("%d picks behind it, want %d", got, tt.want)
			}
			prev.Rules()[0].Pick() // by an RPC that still has the old table
			if got := last.turn.n.Load(); tt.want > 0 && got != tt.want+1 {
				t.Errorf("%d picks behind it after one more by the old table, want %d", got, tt.want+1)
			}
		})
	}
}

// TestCompileGivesEachRuleItsTurn: two rules of one name, which no store lets
// through, do not count as one.
func TestCompileGivesEachRuleItsTurn(t *testing.T) {
	set := split(1, 1)
	set.GRPCRoutes = append(set.GRPCRoutes, set.GRPCRoutes[0])
	prev := Compile(set, nil)
	for _, table := range []*Table{prev, Compile(set, prev)} {
		if a, b := table.Rules()[0], table.Rules()[1]; a.turn == b.turn {
			t.Error("two rules share a turn")
		}
	}
}

func TestRuleAppliesFiltersOfRuleAndSplit(t *testing.T) {
	r := Compile(parse(t, routes(
		`r: rules: [{filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-A, value: "1"}], add: [{name: X-B, value: "2"}], remove: [X-C]}}], backendRefs: [{name: a, filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {remove: [Server]}}]}, {name: b, filters: [{type: RequestHeaderModifier, requestHeaderModifier: {}}]}]}]`,
	)), nil).Rules()[0]
	m := r.Request
	if m == nil || r.Response != nil {
		t.Fatalf("rule: got %v and %v, want a modifier of requests alone", r.Request, r.Response)
	}
	if !slices.Equal(m.Set, []store.Header{{Name: "x-a", Value: "1"}}) ||
		!slices.Equal(m.Add, []store.Header{{Name: "x-b", Value: "2"}}) || !slices.Equal(m.Remove, []string{"x-c"}) {
		t.Errorf("rule: got %+v", m)
	}
	if s := r.Splits[0]; s.Request != nil || s.Response == nil || !slices.Equal(s.Response.Remove, []string{"server"}) {
		t.Errorf("split a: got %+v and %+v, want a modifier of responses alone", s.Request, s.Response)
	}
	if s := r.Splits[1]; s.Request != nil || s.Response != nil {
		t.Errorf("split b: got %+v and %+v, want none: its filter changes nothing", s.Request, s.Response)
	}
}

func TestModifierDropsWhatItSetsAndRemoves(t *testing.T) {
	m := newModifier(&store.HeaderModifier{
		Set: []store.Header{{Name: "Set-Me", Value: "v"}}, Add: []store.Header{{Name: "Add-Me", Value: "v"}},
		Remove: []string{"Remove-Me", strings.Repeat("x", 64+6)},
	})
	for name, want := range map[string]bool{
		"set-me": true, "remove-me": true, strings.Repeat("x", 70): true,
		"add-me": false, "get-me": false, "other": false, "": false, strings.Repeat("x", 6): false, // as long as set-me
	} {
		if got := m.Drops(name); got != want {
			t.Errorf("%q: got %v, want %v", name, got, want)
		}
	}
	if newModifier(nil) != nil {
		t.Error("no modifier: got one")
	}
}
