package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReadSkipsRefusesALineWithoutAReason(t *testing.T) {
	path := filepath.Join(t.TempDir(), "skips.txt")
	if err := os.WriteFile(path, []byte("# why\n\ninterop a some reason\nconnect b\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := readSkips(path)
	if err == nil || !strings.Contains(err.Error(), "skips.txt:4:") {
		t.Errorf("got %v, want an error at line 4", err)
	}
}

func TestParseAllowanceTakesAPatternInQuotes(t *testing.T) {
	got, ok := parseAllowance(`connect  "A b/**"   some reason`)
	if want := (allowance{"connect", "A b/**", "some reason"}); !ok || got != want {
		t.Errorf("got %q, %t, want %q", got, ok, want)
	}
	for _, line := range []string{`connect "A b/**"`, `connect b`, `connect "" reason`} {
		if got, ok := parseAllowance(line); ok {
			t.Errorf("%s: got %q", line, got)
		}
	}
}

func TestReadSkipsAcceptsTheCommittedList(t *testing.T) {
	all, err := readSkips("skips.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if len(suitesNamed(a.suite)) == 0 {
			t.Errorf("%s %s: no such suite", a.suite, a.pattern)
		}
	}
}

func TestAllowancesMatchOnlyWhatTheyName(t *testing.T) {
	all := allowances{{"interop", "soak", "x"}, {"connect", "**/unary/no-request", "y"}, {"connect", "With GET/**", "z"}}
	tests := []struct {
		name, suite, id string
		want            bool
	}{
		{"exact", "interop", "soak", true},
		{"longer", "interop", "rpc_soak", false},
		{"another suite's", "connect", "soak", false},
		{"end of a name", "connect", "A/B:1/unary/no-request", true},
		{"middle of a name", "connect", "A/unary/no-request/x", false},
		{"beginning of a name", "connect", "With GET/B:1/success", true},
		{"beginning of a segment", "connect", "With GETs/B:1/success", false},
		{"end of a segment", "connect", "A/notunary/no-request", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, got := all.match(tt.suite, tt.id); got != tt.want {
				t.Errorf("got %t, want %t", got, tt.want)
			}
		})
	}
}
