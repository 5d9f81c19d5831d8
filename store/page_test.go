package store

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// page is what a user reads about resources.
const page = "../docs/resources.md"

var fence = regexp.MustCompile("(?ms)^```(yaml|text faulty|text faults)\n(.*?)^```$")

// TestPageHasExamplesThatParse tries every example, and the one that is faulty
// must have exactly the faults that the page shows.
func TestPageHasExamplesThatParse(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	blocks := map[string][]string{}
	for _, m := range fence.FindAllStringSubmatch(string(text), -1) {
		blocks[m[1]] = append(blocks[m[1]], m[2])
	}
	if len(blocks["yaml"]) < 10 || len(blocks["text faulty"]) != 1 || len(blocks["text faults"]) != 1 {
		t.Fatalf("got %d examples, %d faulty and %d lists of faults", len(blocks["yaml"]), len(blocks["text faulty"]), len(blocks["text faults"]))
	}
	for i, example := range blocks["yaml"] {
		set, faults := Parse(page, []byte(example))
		if faults != nil || len(set.Resources()) == 0 {
			t.Errorf("example %d: set %v, faults %v", i+1, set, faults)
		}
	}
	folder(t, map[string]string{"cart.yaml": blocks["text faulty"][0]})
	_, err = Load(LoadOptions{}, "cart.yaml")
	if err == nil || err.Error() != strings.TrimSpace(blocks["text faults"][0]) {
		t.Errorf("the faulty example has:\n%v\nthe page says:\n%s", err, blocks["text faults"][0])
	}
}
