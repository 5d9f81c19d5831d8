package store

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// mutations is how many manifests are tried, each made of an accepted one.
const mutations = 4000

// TestParseSurvivesMutatedManifests changes accepted manifests where bytes seldom
// change in a sensible way: whole values. What FuzzParse holds, holds for each.
func TestParseSurvivesMutatedManifests(t *testing.T) {
	m := mutator{rng: rand.New(rand.NewPCG(1, 2))}
	for _, manifest := range acceptedManifests(t) {
		var tree any
		if err := json.Unmarshal(manifest, &tree); err != nil {
			t.Fatal(err)
		}
		m.trees = append(m.trees, tree)
		m.collect(tree)
	}
	accepted := map[string]int{}
	for range mutations {
		text, err := json.Marshal(m.mutate(m.trees[m.rng.IntN(len(m.trees))], 1+m.rng.IntN(3)))
		if err != nil {
			t.Fatal(err)
		}
		set, faults := parseBounded(t, text)
		if (set == nil) != (len(faults) > 0) {
			t.Fatalf("set %v beside faults %v\n%s", set, faults, text)
		}
		for i, fault := range faults {
			checkFault(t, fault, text, i == maxFaults)
		}
		if set == nil {
			continue
		}
		checkAgain(t, set)
		for _, r := range set.Resources() {
			accepted[r.Kind()]++
			checkDecode(t, r)
		}
		if t.Failed() {
			t.Fatalf("of %s", text)
		}
	}
	for _, kind := range []string{GRPCRouteKind, HTTPRouteKind, BackendKind, RPCPolicyKind, SchemaKind} {
		if accepted[kind] < mutations/100 {
			t.Errorf("%d of kind %s were accepted: too few to say much", accepted[kind], kind)
		}
	}
	t.Logf("of %d mutated manifests were accepted: %v", mutations, accepted)
}

// checkAgain has a set written and parsed again.
func checkAgain(t *testing.T, set *Set) {
	t.Helper()
	want := normalForm(set)
	again, faults := Parse("f", []byte(want))
	if faults != nil {
		t.Fatalf("not accepted again: %v\n%s", faults, want)
	}
	if got := normalForm(again); got != want {
		t.Fatalf("became\n%s\nwas\n%s", got, want)
	}
}

func acceptedManifests(t *testing.T) [][]byte {
	t.Helper()
	files, err := filepath.Glob("testdata/*.golden")
	if err != nil {
		t.Fatal(err)
	}
	texts := []string{oneOfEach}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		input, _, _ := strings.Cut(string(data), resultLine)
		texts = append(texts, input)
	}
	var manifests [][]byte
	for _, text := range texts {
		set, faults := Parse("f", []byte(text))
		if faults != nil {
			continue
		}
		for _, r := range set.Resources() {
			manifest, err := r.MarshalJSON()
			if err != nil {
				t.Fatal(err)
			}
			manifests = append(manifests, manifest)
		}
	}
	return manifests
}

// mutator makes manifests of others.
type mutator struct {
	rng   *rand.Rand
	trees []any
	parts []any // values of all trees, to put in another's place
}

func (m *mutator) collect(v any) {
	m.parts = append(m.parts, v)
	switch v := v.(type) {
	case map[string]any:
		for _, k := range sortedKeys(v) {
			m.collect(v[k])
		}
	case []any:
		for _, item := range v {
			m.collect(item)
		}
	}
}

func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// mutate is a copy of v with n of its values changed.
func (m *mutator) mutate(v any, n int) any {
	if n == 0 {
		return v
	}
	switch c := v.(type) {
	case map[string]any:
		if len(c) == 0 || m.rng.IntN(8) == 0 {
			return m.mutate(m.changeMap(c), n-1)
		}
		keys := sortedKeys(c)
		return m.with(c, keys[m.rng.IntN(len(keys))], func(old any) any { return m.mutate(old, n) })
	case []any:
		if len(c) == 0 || m.rng.IntN(4) == 0 {
			return m.mutate(m.changeList(c), n-1)
		}
		c = slices.Clone(c)
		at := m.rng.IntN(len(c))
		c[at] = m.mutate(c[at], n)
		return c
	default:
		return m.replacement(v)
	}
}

func (m *mutator) with(old map[string]any, key string, change func(any) any) map[string]any {
	c := make(map[string]any, len(old)+1)
	for k, v := range old {
		c[k] = v
	}
	c[key] = change(old[key])
	return c
}

// changeMap takes a field out, adds one, or gives one another object's value.
func (m *mutator) changeMap(old map[string]any) map[string]any {
	keys := sortedKeys(old)
	if len(keys) == 0 {
		return map[string]any{"x": m.part()}
	}
	key := keys[m.rng.IntN(len(keys))]
	switch m.rng.IntN(4) {
	case 0, 1:
		c := m.with(old, key, func(v any) any { return v })
		delete(c, key)
		return c
	case 2:
		return m.with(old, key+"s", func(any) any { return old[key] })
	default:
		return m.with(old, key, func(any) any { return m.part() })
	}
}

// changeList takes an entry out, or repeats one.
func (m *mutator) changeList(old []any) []any {
	if len(old) == 0 {
		return []any{m.part()}
	}
	at := m.rng.IntN(len(old))
	if m.rng.IntN(2) == 0 {
		return slices.Delete(slices.Clone(old), at, at+1)
	}
	c := slices.Clone(old)
	for range 1 + m.rng.IntN(20) {
		c = append(c, old[at])
	}
	return c
}

func (m *mutator) part() any { return m.parts[m.rng.IntN(len(m.parts))] }

// replacement is another value, more often than not one that is near to the old.
func (m *mutator) replacement(old any) any {
	odd := []any{
		nil, true, false, 0, -1, 1, 16, 65536, 1 << 40, 1.5, "", "a", "A", "*", "a.b", "a\x00", "\u202e", "5s", "0s", "99999h", "100000h",
		"/", "/a", "//", "/a/../b", "yes", "~", "[a]", "&a", "*a", "<<", "1763766000123.0@k3f9x2ab", "Exact", "RegularExpression", "PathPrefix", "(", "a*",
		"9999-12-31T23:59:59-01:00", "0000-01-01T00:00:00+01:00", "2026-02-30T00:00:00Z", strings.Repeat("a", 300), strings.Repeat("a.", 2000),
		map[string]any{},
		[]any{},
		[]any{[]any{}},
	}
	s, isText := old.(string)
	switch pick := m.rng.IntN(4); {
	case pick == 0:
		return odd[m.rng.IntN(len(odd))]
	case pick == 1:
		return m.part()
	case isText && s != "":
		at := m.rng.IntN(len(s))
		return s[:at] + string(rune('a'+m.rng.IntN(26))) + s[at:]
	default:
		return fmt.Sprint(old)
	}
}
