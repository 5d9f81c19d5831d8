package store

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the results in testdata/*.golden")

// resultLine parts the input from the result in a golden file.
const resultLine = "========== result\n"

// golden checks that result turns the input of each file into its result.
func golden(t *testing.T, pattern string, result func(input []byte) string) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("glob %s: %d files, %v", pattern, len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".golden"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			input, want, _ := bytes.Cut(data, []byte(resultLine))
			got := result(input)
			if *update {
				data = append(append(bytes.Clone(input), resultLine...), got...)
				if err := os.WriteFile(file, data, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(want) {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

// parsed is what a text says: its faults, or its objects in normal form.
func parsed(input []byte) string {
	set, faults := Parse("in.yaml", input)
	if faults != nil {
		return faults.Error() + "\n"
	}
	text := normalForm(set)
	for _, i := range set.Ignored {
		text += "# " + i.String() + "\n"
	}
	return text
}

// normalForm has each object of a set as a JSON document.
func normalForm(set *Set) string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	for _, r := range set.Resources() {
		b.WriteString("---\n")
		if err := enc.Encode(r); err != nil {
			panic(err)
		}
	}
	return b.String()
}

// mustParse parses what has no fault.
func mustParse(t *testing.T, text string) *Set {
	t.Helper()
	set, faults := Parse("in.yaml", []byte(text))
	if faults != nil {
		t.Fatal(faults)
	}
	return set
}
