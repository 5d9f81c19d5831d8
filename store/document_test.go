package store

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// backendText is a valid document, with more of what follows metadata's name.
func backendText(name, more string) string {
	return "apiVersion: sluice.dev/v1alpha1\nkind: Backend\nmetadata: {name: " + name + more + "}\nspec: {endpoints: []}\n"
}

func TestParseRefusesWhatIsNoText(t *testing.T) {
	tests := []struct {
		name, text, want string
	}{
		{"empty", "", ""},
		{"byte order mark", "\ufeff" + backendText("a", ""), ""},
		{"CR LF", strings.ReplaceAll(backendText("a", ""), "\n", "\r\n"), ""},
		{"NUL", "a: b\nc:\x00", "f:2:3: control character 0x00"},
		{"escape", "é\x1b[2J", "f:1:2: control character 0x1b"},
		{"DEL", "\x7f", "f:1:1: control character 0x7f"},
		{"C1", "a\u0080", "f:1:2: control character U+0080"},
		{"next line is a line break", "# \u0085# \u00a0\u2028", ""},
		{"second byte order mark", "\ufeff\ufeff", "f:1:1: control character U+FEFF"},
		{"noncharacter", "\uffff", "f:1:1: control character U+FFFF"},
		{"Latin-1", "a: \xe9\n", "f:1:4: not UTF-8: byte 0xe9"},
		{"UTF-16", "\xff\xfea\x00", "f:1:1: not UTF-8: byte 0xff"},
		{"cut off", "# \xe2\x82", "f:1:3: not UTF-8: byte 0xe2"},
		{"surrogate", "\xed\xa0\x80", "f:1:1: not UTF-8: byte 0xed"},
		{"lone surrogate in JSON", `{"a": "\ud800"}`, "f:1:1: not YAML: found invalid Unicode character escape code"},
		{"open quote", "a: b\nc: 'd\n\ne: f\n", "f:2:1: not YAML: found unexpected end of stream"},
		{"open flow", "  [a", "f:1:3: not YAML: did not find expected ',' or ']'"},
		{"tab as indentation", "a:\n\tb: c\n", "f:2:2: not YAML: found character that cannot start any token"},
		{"unknown anchor", "a: *" + strings.Repeat("x", 300), `f:1:1: not YAML: "unknown anchor 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"…`},
		{"syntax error in a large text", strings.Repeat("a: b\n", 5000) + "c: [\n", "f:5001:1: not YAML: did not find expected node content"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			set, faults := Parse("f", []byte(tt.text))
			if got := faults.Error(); got != tt.want {
				t.Errorf("got %s\nwant %s", got, tt.want)
			}
			if (set == nil) != (faults != nil) {
				t.Errorf("set %v beside faults %v, want one of the two", set, faults)
			}
		})
	}
}

func TestParseReadsTheOtherDocuments(t *testing.T) {
	text := backendText("a", "") + "---\n{\n---\n" + backendText("a", ", x: y") + "...\n'\n"
	_, faults := Parse("f", []byte(text))
	want := `f:6:1: not YAML: did not find expected node content
f:10:18: metadata.name: Backend default/a is declared already, at f:1
f:10:21: metadata.x: unknown field
f:13:1: not YAML: found unexpected end of stream`
	if got := faults.Error(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestParseBoundsWhatItReads(t *testing.T) {
	if raceDetector {
		t.Skip("measures time: make race runs it without the race detector")
	}
	bomb := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c <= 'i'; c++ {
		p := string(c - 1)
		bomb += fmt.Sprintf("%c: &%c [*%s,*%s,*%s,*%s,*%s,*%s,*%s,*%s,*%s]\n", c, c, p, p, p, p, p, p, p, p, p)
	}
	many := "&n {address: \"a:1\"}" + strings.Repeat(", *n", 101)
	wide := "&n {a: [" + strings.Repeat("x,", 5100) + "]}, *n, *n"
	backend := func(endpoints string) string {
		return "apiVersion: sluice.dev/v1alpha1\nkind: Backend\nmetadata: {name: a}\nspec: {endpoints: [" + endpoints + "]}\n"
	}
	tests := []struct {
		name, text, want string // want is a part of the faults
	}{
		{"alias bomb", "spec:\n  " + strings.ReplaceAll(bomb, "\n", "\n  "), "apiVersion: missing"},
		{"alias bomb where it is read", "apiVersion: v1\nkind: List\nitems: [[&a [x], &b [*a], *b]]\n", "items[0]: want a mapping, not a list"},
		{"alias of an alias", backend("&a {address: \"a:1\", weight: &w 1}, &b {address: \"b:1\", weight: *w}, *b"), `f:4:88: spec.endpoints[2]: alias "b" repeats another alias, or more than 10000 nodes in all`},
		{"too many aliases", backend(many), "spec.endpoints[101]: more than 100 aliases in a document"},
		{"too many nodes repeated", backend(wide), `alias "n" repeats another alias, or more than 10000 nodes in all`},
		{"50 MB", strings.Repeat("# 50 MB\n", 50<<20/8), "f: 52428800 bytes, limit 16777216"},
		{"one document of 3 MiB", "# small\n---\na: b\n---\n" + strings.Repeat("a: bcd\n", 3<<20/7), "f:4:1: a document of 3145727 bytes, limit 2097152"},
		{"runs of base64 that are long in all", "a: " + strings.Repeat("x", 9<<20), "f:1:1: a document of 9437187 bytes, limit 8388608"},
		{"runs of base64 that are no long ones", "a: b\n" + strings.Repeat("- "+strings.Repeat("x", 59)+"\n", 3<<20/62), "f:1:1: a document of 3145699 bytes, limit 2097152"},
		{"nodes as long as such runs", strings.Repeat("- "+strings.Repeat("x", 60)+"\n", 8<<20/63), "f:1:1: want a mapping, not a list"},
		{"a schema that aliases repeat", manySchemas(40), "items[32].spec.descriptorSet: all Schemas together have more than 134217728 bytes of descriptors"},
		{"deep flow", strings.Repeat("[", 100_000), "f:1:1: not YAML: exceeded max depth of 10000"},
		{"deep block", strings.Repeat("- ", 100_000), "f:1:1: not YAML: exceeded max depth of 10000"},
		{"deep JSON", strings.Repeat(`{"a":`, 9_000) + "1" + strings.Repeat("}", 9_000), "f:1:1: apiVersion: missing"},
		{"many documents", strings.Repeat("a\n---\n", 50_100), "and 49902 more faults"},
		{"many empty documents", strings.Repeat("---\n", 50_100), "f:1:1: more than 50000 documents"},
		{"unknown fields without end", backend("") + strings.Repeat("? b\n", 300_000), "and 299900 more faults"},
		{"different fields without end", backend("") + numberedLines("f%d: 0\n", 180_000), "and 179900 more faults"},
		{"regular expressions", patterns(300, `"(a{1000}b{1000}){1}c{1000}d{1000}"`), "all regular expressions together come to more than 1000000 instructions"},
		{"one large regular expression", patterns(1, `"(a{1000}){11}"`), "invalid repeat count"},
		{"one large regular expression of small parts", patterns(1, `"`+strings.Repeat("a{1000}", 12)+`"`), "f:7:50: spec.rules[0].matches[0].method.service: \"" + strings.Repeat("a{1000}", 9) + "a\"…: not a regular expression: a program of more than 10000 instructions"},
		{"regular expression of classes", patterns(1, `"`+strings.Repeat(`\\pL`, 200)+`"`), "a program of more than 10000 instructions"},
		{"regular expressions of HTTPRoutes", strings.ReplaceAll(strings.ReplaceAll(patterns(300, `"(a{1000}b{1000}){1}c{1000}d{1000}"`), "kind: GRPCRoute", "kind: HTTPRoute"), "method: {type: RegularExpression, service", "path: {type: RegularExpression, value"), "all regular expressions together come to more than 1000000 instructions"},
		{"alias bomb in a rule", httpText("matches: &m [{path: {value: /a}}, {}], filters: &f [{type: CORS, cors: {}}], name: *m"), "spec.rules[0].name: want a string, not a list"},
		{"alias that contains itself", httpText("matches: &m [{headers: *m}]"), `spec.rules[0].matches[0].headers: alias "m" repeats another alias`},
		{"alias bomb in a policy", policyText(", retry: {attempts: 1, codes: &b [&c ABORTED, *c]}, timeouts: *b"), `spec.timeouts: alias "b" repeats another alias`},
		{"long service", patterns(1, strings.Repeat("a", 1025)), "1025 bytes, limit 1024"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			start := time.Now()
			_, faults := Parse("f", []byte(tt.text))
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("took %s", took)
			}
			got := faults.Error()
			if !strings.Contains(got, tt.want) {
				t.Errorf("got %.1000s\nwant %s", got, tt.want)
			}
			if len(faults) > maxFaults+1 {
				t.Errorf("%d faults listed, want at most %d and a count", len(faults), maxFaults)
			}
		})
	}
}

// manySchemas is a List of n Schemas that have the same 4 MiB of zeros.
func manySchemas(n int) string {
	text := "apiVersion: v1\nkind: List\nitems:\n"
	set := "&s " + strings.Repeat("A", 4<<20/3*4)
	for i := range n {
		text += fmt.Sprintf("- {apiVersion: sluice.dev/v1alpha1, kind: Schema, metadata: {name: s%d}, spec: {descriptorSet: %s}}\n", i, set)
		set = "*s"
	}
	return text
}

// numberedLines is n times a line with its number.
func numberedLines(format string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

// patterns is a set of n routes with a regular expression each.
func patterns(n int, pattern string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {name: r%d}\nspec:\n  rules:\n  - matches:\n    - method: {type: RegularExpression, service: %s}\n---\n", i, pattern)
	}
	return b.String()
}

// TestParseBoundsMemory reads the text that takes most nodes for its size.
func TestParseBoundsMemory(t *testing.T) {
	doc := "[" + strings.Repeat("a,", maxDocument/2-4) + "]\n"
	text := []byte(strings.Repeat("---\n"+doc, 2))
	var peak uint64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		var m runtime.MemStats
		for {
			select {
			case <-stop:
				return
			case <-time.After(50 * time.Millisecond):
				runtime.ReadMemStats(&m)
				peak = max(peak, m.HeapInuse)
			}
		}
	}()
	_, faults := Parse("f", text)
	close(stop)
	<-done
	if len(faults) != 2 {
		t.Errorf("%d faults, want one for each document", len(faults))
	}
	if peak > 400<<20 {
		t.Errorf("%d MiB in use, want at most 400", peak>>20)
	}
	t.Logf("%d MiB of text took %d MiB", len(text)>>20, peak>>20)
}

func TestDecodeNodeSurvivesTheParser(t *testing.T) {
	var broken *yaml.Decoder
	if _, err := decodeNode(broken); err == nil || !strings.HasPrefix(err.Error(), "the parser gave up: ") {
		t.Errorf("got %v, want that the parser gave up", err)
	}
}

func TestSplitKeepsEveryByteAndLine(t *testing.T) {
	tests := []struct {
		name, text string
		want       []chunk
	}{
		{"empty", "", nil},
		{"one", "a", []chunk{{0, []byte("a")}}},
		{"two", "a\n---\nb\n", []chunk{{0, []byte("a\n")}, {1, []byte("---\nb\n")}}},
		{"head", "# c\n%YAML 1.1\n\n---\nb\n", []chunk{{0, []byte("# c\n%YAML 1.1\n\n---\nb\n")}}},
		{"end", "a\n...\n# c\n---\nb", []chunk{{0, []byte("a\n...\n")}, {2, []byte("# c\n---\nb")}}},
		{"not a marker", "a: |\n ---\n----\n---x\n", []chunk{{0, []byte("a: |\n ---\n----\n---x\n")}}},
		{"content behind the marker", "--- a\n--- b\r\n---\tc\n---", []chunk{{0, []byte("--- a\n")}, {1, []byte("--- b\r\n")}, {2, []byte("---\tc\n")}, {3, []byte("---")}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := split([]byte(tt.text))
			if len(got) != len(tt.want) {
				t.Fatalf("got %d chunks, want %d: %v", len(got), len(tt.want), got)
			}
			for i := range got {
				if got[i].before != tt.want[i].before || !bytes.Equal(got[i].text, tt.want[i].text) {
					t.Errorf("chunk %d: got %d %q, want %d %q", i, got[i].before, got[i].text, tt.want[i].before, tt.want[i].text)
				}
			}
		})
	}
}

func TestFaultsIsAnErrorOfOneLineEach(t *testing.T) {
	faults := Faults{
		{"a\nb.yaml", 1, 2, "spec.x", "wrong"},
		{"a.yaml", 3, 0, "", "also wrong"},
		{"a.yaml", 0, 0, "", "cannot be read"},
		{Message: "and 7 more faults"},
	}
	want := "\"a\\nb.yaml\":1:2: spec.x: wrong\na.yaml:3: also wrong\na.yaml: cannot be read\nand 7 more faults"
	var err error = faults
	var got Faults
	if err.Error() != want || !errors.As(err, &got) {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestFaultListCountsWhatItDoesNotList(t *testing.T) {
	for _, tt := range []struct {
		faults int
		want   string
	}{
		{99, "f:99: x"},
		{100, "f:100: x"},
		{101, "and 1 more fault"},
		{102, "and 2 more faults"},
	} {
		var list faultList
		for i := tt.faults; i > 0; i-- {
			list.add(Position{"f", i, 0}, "", "x")
		}
		got := list.faults()
		if tt.faults <= maxFaults && got[0].Line != 1 {
			t.Errorf("%d faults: the first is %s, want f:1: x", tt.faults, got[0])
		}
		if last := got[len(got)-1].String(); last != tt.want {
			t.Errorf("%d faults: the last is %s, want %s", tt.faults, last, tt.want)
		}
	}
}

func TestQuoteCutsBetweenCharacters(t *testing.T) {
	long := strings.Repeat("x", 63) + "é" + "y"
	if got, want := quote(long), `"`+strings.Repeat("x", 63)+`"…`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := quote("a\nb"), `"a\nb"`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
