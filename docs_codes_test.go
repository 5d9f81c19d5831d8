package main

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"sluice/gateway/wire"
)

// What the documents say of the codes of a REST backend's answers is what the gateway
// makes of them, for every status.
func TestProtocolsListsTheCodesOfHTTP(t *testing.T) {
	text, err := os.ReadFile("docs/protocols.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[int]string{}
	others := map[int]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| ([0-9, ]+|any other [45]xx) \\| `([A-Z_]+)`").FindAllStringSubmatch(string(text), -1) {
		if class, ok := strings.CutPrefix(row[1], "any other "); ok {
			others[int(class[0]-'0')] = row[2]
			continue
		}
		for status := range strings.SplitSeq(row[1], ",") {
			n, err := strconv.Atoi(strings.TrimSpace(status))
			if err != nil {
				t.Fatal(err)
			}
			documented[n] = row[2]
		}
	}
	if len(documented) < 15 || len(others) != 2 {
		t.Fatalf("%d statuses and %d classes: this is not the table", len(documented), len(others))
	}
	for status := 400; status < 600; status++ {
		want := documented[status]
		if want == "" {
			want = others[status/100]
		}
		if got := wire.FromREST(status).String(); got != want {
			t.Errorf("HTTP %d is %s, documented as %s", status, got, want)
		}
	}
}
