package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// editor makes the user's editor a shell script, to which the file is $1.
func (u *user) editor(script string) {
	file := filepath.Join(u.dir, "editor")
	if err := os.WriteFile(file, []byte("#!/bin/sh\nset -e\n"+script), 0o700); err != nil {
		u.t.Fatal(err)
	}
	u.env["EDITOR"] = file
	u.t.Setenv("TMPDIR", u.dir)
}

func (u *user) leftovers() []string {
	found, _ := filepath.Glob(filepath.Join(u.dir, "sluice-*.yaml"))
	return found
}

func TestEditAppliesWhatWasSaved(t *testing.T) {
	u := newUser(t)
	u.editor(`grep -q 'resourceVersion: 1777908600000.0@k3f9x2ab' "$1"
! grep -q status: "$1"
sed -i s/shop.example.com/new.example.com/ "$1"`)
	got := u.run("edit", "route", "cart", "--take-over", "--reason", "moved")
	if got.code != 0 || got.stdout != "GRPCRoute default/cart updated\n" {
		t.Errorf("got exit %d, %q, %q", got.code, got.stdout, got.stderr)
	}
	if asked := u.fake.asked(); !strings.Contains(asked, `"reason":"moved"`) {
		t.Errorf("the server was asked %s", asked)
	}
	if left := u.leftovers(); len(left) > 0 {
		t.Errorf("files are left: %v", left)
	}
}

func TestEditLeavesAloneWhatWasNotChanged(t *testing.T) {
	u := newUser(t)
	u.editor("true")
	got := u.run("edit", "backend", "cart-v1")
	if got.code != 0 || got.stderr != "Backend default/cart-v1 unchanged\n" || u.fake.asked() != "" {
		t.Errorf("got exit %d, %q, asked %q", got.code, got.stderr, u.fake.asked())
	}
}

func TestEditShowsFaultsAndGoesOn(t *testing.T) {
	u := newUser(t)
	// A mistake at first; then, when it is told of, the correction.
	u.editor(`if grep -q '^# fault: line [0-9]*: spec.bad: unknown field$' "$1"; then sed -i /bad/d "$1"; echo '# fine' >> "$1"; else echo 'bad: 1' >> "$1"; fi`)
	got := u.run("edit", "route", "cart", "--take-over")
	if got.code != 0 || !strings.Contains(got.stdout, "GRPCRoute default/cart un") {
		t.Errorf("got exit %d, %q, %q", got.code, got.stdout, got.stderr)
	}
	if n := strings.Count(u.fake.asked(), "ApplyRequest"); n != 2 {
		t.Errorf("applied %d times, want 2", n)
	}
}

func TestEditKeepsWhatHasFaults(t *testing.T) {
	tests := []struct {
		name, script string
		want         string // after the name of the file that is kept, and its place
		asked        int    // how often the server was
	}{
		{"a fault that the server finds", `grep -q bad "$1" || echo 'bad: 1' >> "$1"`, ":33:1: spec.bad: unknown field", 1},
		{"no UTF-8", `grep -q '^# fault' "$1" || printf 'a: \351t\351\n' >> "$1"`, ":33:4: not UTF-8: byte 0xe9; save the file as UTF-8", 0},
		{"UTF-16", `grep -q '^# fault' "$1" || printf '\377\376a\000' > "$1"`, ":1:1: not UTF-8: byte 0xff; save the file as UTF-8", 0},
		{"another name", `sed -i 's/name: cart$/name: other/' "$1"`, ": metadata: want GRPCRoute default/cart: kind, name and namespace cannot be changed here; sluice apply declares another object", 0},
		{"another namespace", `sed -i 's/namespace: default/namespace: shop/' "$1"`, ": metadata: want GRPCRoute default/cart: ", 0},
		{"another kind", `sed -i 's/kind: GRPCRoute/kind: HTTPRoute/' "$1"`, ": metadata: want GRPCRoute default/cart: ", 0},
		{"a second object", `grep -q '^# fault' "$1" || printf -- '---\nkind: Backend\nmetadata: {name: x}\n' >> "$1"`, ": metadata: want GRPCRoute default/cart: ", 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			u := newUser(t)
			u.editor("export LC_ALL=C\n" + test.script)
			got := u.run("edit", "route", "cart", "--take-over")
			left := u.leftovers()
			if got.code != 1 || len(left) != 1 {
				t.Fatalf("got exit %d, %q, left %v", got.code, got.stderr, left)
			}
			end := "sluice: edit GRPCRoute default/cart: not applied, it still has 1 fault; your version is in " + left[0] + "\n"
			if !strings.HasPrefix(got.stderr, left[0]+test.want) || !strings.HasSuffix(got.stderr, end) {
				t.Errorf("got %q, want the fault %q", got.stderr, test.want)
			}
			if data, err := os.ReadFile(left[0]); err != nil || strings.Contains(string(data), faultMark) {
				t.Errorf("the file has %q, %v, want what was edited, without remarks", data, err)
			}
			if n := strings.Count(u.fake.asked(), "ApplyRequest"); n != test.asked {
				t.Errorf("the server was asked %d times, want %d", n, test.asked)
			}
		})
	}
}

func TestEditShowsAFaultAtItsLine(t *testing.T) {
	u := newUser(t)
	u.editor(`if n=$(sed -n 's/^# fault: line \([0-9]*\):.*/\1/p' "$1") && [ "$n" ]; then sed -i "${n}d" "$1"; else printf 'hostname: \351\n' >> "$1"; fi`)
	got := u.run("edit", "route", "cart", "--take-over")
	if got.code != 0 || u.leftovers() != nil {
		t.Errorf("the line that is named was not the one: got exit %d, %q", got.code, got.stderr)
	}
}

func TestEditShowsBothVersionsOfAConflict(t *testing.T) {
	u := newUser(t)
	u.editor(`sed -i -e s/1777908600000/1777908500000/ -e s/shop.example.com/mine.example.com/ "$1"`)
	got := u.run("edit", "route", "cart", "--take-over")
	left := u.leftovers()
	if got.code != 1 || len(left) != 1 {
		t.Fatalf("got exit %d, %q, left %v", got.code, got.stderr, left)
	}
	for _, want := range []string{
		"-    - shop.example.com\n+    - mine.example.com\n", "your version is in " + left[0],
		"you wrote against  1777908500000.0@k3f9x2ab\n", "there is now       1777908600000.0@k3f9x2ab, changed 5m ago by alice via cli: canary step 2\n",
		"GRPCRoute default/cart was changed meanwhile",
	} {
		if !strings.Contains(got.stderr, want) {
			t.Errorf("no %q in\n%s", want, got.stderr)
		}
	}
}

func TestEditOpensNothingThatAFileOwns(t *testing.T) {
	u := newUser(t)
	u.env["SLUICE_EDITOR"] = "false"
	want := "sluice: GRPCRoute default/cart is declared by file routes.yaml:3 and read-only here: change the file, or adopt the object with --take-over\n"
	if got := u.run("edit", "route", "cart"); got.code != 1 || got.stderr != want {
		t.Errorf("got exit %d, %q", got.code, got.stderr)
	}
}

func TestEditSaysWhenTheEditorFails(t *testing.T) {
	u := newUser(t)
	u.env["SLUICE_EDITOR"] = "false"
	if got := u.run("edit", "route", "cart", "--take-over"); got.code != 1 || !strings.Contains(got.stderr, "edit GRPCRoute default/cart with false: exit status 1") {
		t.Errorf("got exit %d, %q", got.code, got.stderr)
	}
}
