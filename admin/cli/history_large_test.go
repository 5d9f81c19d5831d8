package cli

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
)

// Large objects make the server cut its answers short: what is missing is asked for.
func TestHistoryOfLargeObjectsIsWhole(t *testing.T) {
	u := newUser(t)
	newest := u.fake.changes[0]
	u.fake.changes = nil
	for i := range uint64(4) {
		change := proto.CloneOf(newest)
		change.Sequence = 40 - i
		change.After.Manifest = `{"x": "` + strings.Repeat("x", 10<<20) + `"}`
		u.fake.changes = append(u.fake.changes, change)
	}
	const all = 5 // with the head
	if got := u.run("history"); strings.Count(got.stdout, "\n") != all {
		t.Errorf("%s%s, want %d lines", got.stdout, got.stderr, all)
	}
	if got := u.run("history", "--limit", "2"); strings.Count(got.stdout, "\n") != 3 {
		t.Errorf("%s%s, want a head and two lines", got.stdout, got.stderr)
	}
}
