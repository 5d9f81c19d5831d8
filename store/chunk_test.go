package store

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

func TestDecodeGroupReadsWhatEachChunkSays(t *testing.T) {
	files, err := filepath.Glob("testdata/*.golden")
	if err != nil || len(files) == 0 {
		t.Fatalf("glob: %d files, %v", len(files), err)
	}
	texts := []string{
		"", "\n", "# c\n", "---\n---\n", "a\n...\n---\nb\n", "a\n...\nb\n", "...\na\n---\nb\n", "...\n...", "...\n---\na\n", "a\n---\n...\n", "a\n---\nb\n...\n...\n", "a: |\n  b\n\n---\nc\n", "a: |+\n  b\n\n---\nc\n", "a: >-\n  b\n---\n  c\n",
		"a: 'b\n---\nc'\n---\nd\n", "a: [b\n---\nc]\n", "a: b\n--- c\n---\td\n--- |\n e\n---\n", "a: &a b\n---\nc: &a d\n---\nx: y\n", "a: &a b\n---\nc: *a\n---\nx: y\n",
		"%YAML 1.1\n---\na\n---\nb\n", "a\n---\n%TAG ! x:\n---\n!b c\n", "a\r\n---\r\nb\r\n", "a\rb: c\n---\nd\n", "# a\r---\n---\nb: c\n---\nd\n", "a\u2028b\n---\nc\n", `{"a": "\ud83d\ude00"}` + "\n---\n" + `{"b": 1}`, `{"a": "\/"}` + "\n---\n" + `{"b": 1}` + "\n---\nc\n",
		"a:\n\tb\n---\nc\n", "? a\n---\n: b\n", "- a\n---\n- b\n--- # c\n- d\n", "a\n---\n\n\n---\n\nb", string(manyRoutes(200)), oneOfEach,
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(data))
	}
	grouped := 0
	for _, text := range texts {
		grouped += checkGroups(t, []byte(text))
	}
	if grouped < 15 {
		t.Errorf("%d groups of several chunks were parsed in one go: too few to say much", grouped)
	}
}

// checkGroups returns how many groups of several chunks were parsed in one go. Each
// must have said what its chunks say one by one, at the same places.
func checkGroups(t *testing.T, text []byte) (grouped int) {
	t.Helper()
	chunks := split(text)
	rest := chunks
	for _, g := range group(chunks) {
		if len(g) == 0 || len(rest) < len(g) || &g[0] != &rest[0] {
			t.Fatalf("groups are not the chunks in their order, of %q", text)
		}
		rest = rest[len(g):]
		whole := decodeGroup(g)
		if len(g) > 1 && len(whole) == 1 {
			grouped++
		}
		var each []decodedChunk
		for _, c := range g {
			each = append(each, c.decode())
		}
		if got, want := outline(whole), outline(each); got != want {
			t.Fatalf("in one go:\n%s\none by one:\n%s\nof %q", got, want, joined(g).text)
		}
	}
	if len(rest) > 0 {
		t.Fatalf("%d chunks are in no group, of %q", len(rest), text)
	}
	return grouped
}

// outline has each node with its place in the text, and each error.
func outline(chunks []decodedChunk) string {
	var b strings.Builder
	var write func(before int, n *yaml.Node)
	write = func(before int, n *yaml.Node) {
		fmt.Fprintf(&b, "%d:%d %d %q %q %q\n", before+n.Line, n.Column, n.Kind, n.ShortTag(), n.Value, n.Anchor)
		for _, child := range n.Content {
			write(before, child)
		}
	}
	for _, c := range chunks {
		for _, root := range c.roots {
			for _, n := range root.Content { // a document itself begins where its comment does
				write(c.before, n)
			}
		}
		if c.err != nil {
			fmt.Fprintf(&b, "after %d: %v\n", c.before, c.err)
		}
	}
	return b.String()
}

func TestGroupBoundsWhatIsDecodedTogether(t *testing.T) {
	groups := group(split(manyRoutes(2000)))
	for len(groups) > 0 {
		batch := groups[:batchLen(groups)]
		groups = groups[len(batch):]
		size := 0
		for _, g := range batch {
			size += len(joined(g).text)
			if len(joined(g).text) > maxGroup {
				t.Errorf("a group of %d bytes, limit %d", len(joined(g).text), maxGroup)
			}
		}
		if size > maxBatch || len(batch) > maxBatchLen {
			t.Errorf("a batch of %d bytes in %d groups, limits %d and %d", size, len(batch), maxBatch, maxBatchLen)
		}
	}
	large := strings.Repeat("a: b\n", maxBatch/4)
	if got := len(group(split([]byte(large + "---\n" + large)))); got != 2 {
		t.Errorf("two large documents are in %d groups, want each in its own", got)
	}
	if got := batchLen(group(split([]byte(strings.Repeat("a: '*'\n---\n", 1000))))); got != maxBatchLen {
		t.Errorf("a batch of %d small groups, want %d", got, maxBatchLen)
	}
}
