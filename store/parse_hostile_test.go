package store

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
)

// spent is what fn allocated, in bytes, and how long it took.
func spent(fn func()) (allocated uint64, took time.Duration) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	begin := time.Now()
	fn()
	took = time.Since(begin)
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc, took
}

// TestParseBoundsAThousandBadObjects has a thousand objects of each kind, with a fault
// in every field: a hundred are listed, the rest is counted.
func TestParseBoundsAThousandBadObjects(t *testing.T) {
	var text strings.Builder
	for range 1000 {
		text.WriteString(`---
{apiVersion: v1, kind: GRPCRoute, metadata: {name: "a\0b", namespace: "\e", labels: [], x: y}, spec: {hostnames: [A, 5, ~], rules: [{x: y}, 5]}}
---
{apiVersion: v1, kind: HTTPRoute, metadata: {name: "a\nb"}, spec: {rules: [{matches: [{path: {value: a}, method: 5}], filters: [{type: x}, {}], timeouts: {request: x}}]}}
---
{apiVersion: v1, kind: Backend, metadata: {name: A}, spec: {endpoints: [{address: a}, {}, 5], protocol: x, connection: {maxStreams: 0}}}
---
{apiVersion: v1, kind: RPCPolicy, metadata: {name: -}, spec: {targetRefs: [{}, 5], retry: {attempts: x}, split: {whenNoEndpoints: x}}}
`)
	}
	var faults Faults
	allocated, took := spent(func() { _, faults = Parse("f", []byte(text.String())) })
	if len(faults) != maxFaults+1 || faults[maxFaults].Message != "and 31900 more faults" {
		t.Errorf("%d faults, the last %s; want %d and a count of the rest", len(faults), faults[len(faults)-1], maxFaults)
	}
	for i, fault := range faults {
		checkFault(t, fault, []byte(text.String()), i == maxFaults)
	}
	if allocated > 256<<20 || took > 5*time.Second {
		t.Errorf("allocated %d MiB in %s, want at most 256 MiB in 5s", allocated>>20, took)
	}
	t.Logf("4,000 objects, %d KiB: %d faults listed, %d MiB allocated in all, %s", text.Len()>>10, maxFaults, allocated>>20, took)
}

// TestParseRefusesALargeBodyUnread looks at nothing but its length.
func TestParseRefusesALargeBodyUnread(t *testing.T) {
	text := make([]byte, 50<<20)
	var faults Faults
	allocated, took := spent(func() { _, faults = Parse("f", text) })
	if want := "f: 52428800 bytes, limit 16777216"; faults.Error() != want {
		t.Errorf("got %v, want %s", faults, want)
	}
	if allocated > 1<<20 || took > time.Second {
		t.Errorf("allocated %d bytes in %s, want less than 1 MiB in 1s", allocated, took)
	}
}

// TestParseRefusesNamesThatAreNone in every kind, and shows none of them as it is.
func TestParseRefusesNamesThatAreNone(t *testing.T) {
	texts := map[string]string{ // with a place for a name
		GRPCRouteKind: "apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {name: %s}\nspec: {}\n",
		HTTPRouteKind: "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: %s}\nspec: {}\n",
		BackendKind:   backendText("%s", ""),
		RPCPolicyKind: strings.Replace(policyText(""), "name: p", "name: %s", 1),
		"Gateway":     "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: %s}\n",
		"a namespace": backendText("a", ", namespace: %s"),
		"a reference": ruleText("backendRefs: [{name: %s}]"),
		"a target":    strings.Replace(policyText(""), "name: r", "name: %s", 1),
		"a rule":      httpText("name: %s"),
	}
	names := map[string]string{
		"NUL":              `"a\0"`,
		"line feed":        `"a\n"`,
		"escape":           `"\e[2Ja"`,
		"delete":           `"a\x7f"`,
		"right to left":    `"a\u202eb"`,
		"zero width":       `"a\u200bb"`,
		"letters of Latin": `é`,
		"fullwidth":        `ａ`,
		"slash":            `a/b`,
		"two dots":         `a..b`,
		"parent":           `..`,
		"capital":          `Cart`,
		"blank":            `"a b"`,
		"long":             strings.Repeat("a", 254),
	}
	for kind, text := range texts {
		for what, name := range names {
			_, faults := Parse("f", fmt.Appendf(nil, text, name))
			if len(faults) != 1 || !strings.Contains(faults[0].Message, ": want ") && !strings.Contains(faults[0].Message, ", limit ") {
				t.Errorf("%s of %s: faults %v, want one about the name", what, kind, faults)
				continue
			}
			checkFault(t, faults[0], []byte(text), false)
		}
	}
}

// TestParseReportsWhatIsDeclaredTwice of each kind, in one text, in a List and in JSON.
func TestParseReportsWhatIsDeclaredTwice(t *testing.T) {
	docs := strings.Split(oneOfEach, "---\n")
	for _, doc := range docs {
		_, faults := Parse("f", []byte(doc+"---\n"+doc))
		if len(faults) != 1 || !strings.Contains(faults[0].Message, " is declared already, at f:1") {
			t.Errorf("got %v, want one of a second declaration\n%s", faults, doc)
		}
	}
	const list = `{"apiVersion": "v1", "kind": "List", "items": [
{"apiVersion": "sluice.dev/v1alpha1", "kind": "Backend", "metadata": {"name": "a"}, "spec": {"endpoints": []}},
{"apiVersion": "sluice.dev/v1alpha1", "kind": "Backend", "metadata": {"name": "a", "namespace": "default"}, "spec": {"endpoints": [], "endpoints": []}}]}`
	_, faults := Parse("f", []byte(list))
	want := "f:3:79: items[1].metadata.name: Backend default/a is declared already, at f:2\n" +
		"f:3:135: items[1].spec.endpoints: the key is there already"
	if faults.Error() != want {
		t.Errorf("got %v\nwant %s", faults, want)
	}
}

// TestParseRefusesTimesThatCannotBeWritten are those whose time zone leads out of the
// years of four digits.
func TestParseRefusesTimesThatCannotBeWritten(t *testing.T) {
	for text, want := range map[string]string{
		"9999-12-31T23:59:59+01:00":  "",
		"9999-12-31T23:59:59-01:00":  `f:3:40: metadata.creationTimestamp: "9999-12-31T23:59:59-01:00": want a year from 0000 to 9999 in UTC`,
		"0000-01-01T00:00:00Z":       "",
		"0000-01-01T00:00:00+01:00":  `f:3:40: metadata.creationTimestamp: "0000-01-01T00:00:00+01:00": want a year from 0000 to 9999 in UTC`,
		"10000-01-01T00:00:00Z":      `f:3:40: metadata.creationTimestamp: "10000-01-01T00:00:00Z": want a time like 2006-01-02T15:04:05Z`,
		"2026-01-01T00:00:00+99:99Z": `f:3:40: metadata.creationTimestamp: "2026-01-01T00:00:00+99:99Z": want a time like 2006-01-02T15:04:05Z`,
	} {
		set, faults := Parse("f", []byte(backendText("a", ", creationTimestamp: "+text)))
		if got := faults.Error(); got != want {
			t.Errorf("%s: got %s\nwant %s", text, got, want)
		}
		if set != nil {
			checkAgain(t, set)
		}
	}
}
