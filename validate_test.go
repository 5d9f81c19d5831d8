package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// invoke runs a command line to its end.
func invoke(ctx context.Context, args ...string) (stdout, stderr string, code int) {
	var out, errs strings.Builder
	err := run(ctx, args, &out, &errs)
	code = exitCode(err, &errs)
	return out.String(), errs.String(), code
}

func TestValidate(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	good := write("good/a.yaml", manifest("a"))
	write("good/b.yaml", manifest("b"))
	bad := write("bad.yaml", "kind: Nonsense\n---\n"+strings.Replace(manifest("c"), "spec:\n  rules:", "spec:\n  rulez:", 1))
	dangling := write("dangling.yaml", strings.Split(manifest("d"), "---")[0])

	web := write("web.yaml", manifest("a")+"---\n"+strings.ReplaceAll(strings.Split(manifest("w"), "---")[0], "kind: GRPCRoute", "kind: HTTPRoute")+"---\n"+strings.Split(manifest("w"), "---")[1]+
		"---\napiVersion: sluice.dev/v1alpha1\nkind: RPCPolicy\nmetadata: {name: p}\nspec:\n"+
		"  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: w}]\n  timeouts: {request: 5s}\n"+
		"---\napiVersion: sluice.dev/v1alpha1\nkind: Schema\nmetadata: {name: s}\n"+
		"spec: {backendRefs: [{name: w}], descriptorSet: ChkKB2EucHJvdG8SAWEiAwoBTWIGcHJvdG8z}\n"+
		"---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: edge}\n")

	tests := []struct {
		name   string
		args   []string
		code   int
		stdout string
		stderr []string // how each line begins
	}{
		{"a file", []string{"-f", good}, 0, "ok: 1 route, 1 backend\n", nil},
		{"a folder", []string{"-f", filepath.Dir(good)}, 0, "ok: 2 routes, 2 backends\n", nil},
		{"every fault", []string{"-f", bad}, 1, "", []string{bad + ":1:", bad + ":7:3: spec.rulez: ", "sluice: "}},
		{"a reference to nothing", []string{"-f", dangling}, 1, "", []string{dangling + ":6:", "sluice: 1 fault in the resources"}},
		{"a reference to nothing, allowed", []string{"-f", dangling, "--allow-unresolved"}, 0, "ok: 1 route, 0 backends\n", nil},
		{"a file that is not there", []string{"-f", dir + "/none"}, 1, "", []string{dir + "/none", "sluice: 1 fault"}},
		{"what has no effect", []string{"-f", web}, 0, "ok: 1 route, 2 backends, 1 HTTP route, 1 policy, 1 schema\n", []string{"warning: " + web + ":40: Gateway edge is ignored: "}},
		{"nothing", nil, 2, "", []string{"sluice: nothing to check; give a file with -f"}},
	}
	for _, test := range tests {
		stdout, stderr, code := invoke(t.Context(), append([]string{"validate"}, test.args...)...)
		if code != test.code || stdout != test.stdout {
			t.Errorf("%s: exit %d, stdout %q, want %d, %q", test.name, code, stdout, test.code, test.stdout)
		}
		lines := strings.Split(strings.TrimSuffix(stderr, "\n"), "\n")
		if test.stderr == nil && stderr != "" {
			t.Errorf("%s: stderr %q, want none", test.name, stderr)
		}
		for _, want := range test.stderr {
			if !strings.Contains("\n"+stderr, "\n"+want) {
				t.Errorf("%s: stderr %q, want a line that begins with %q", test.name, lines, want)
			}
		}
	}
}

func TestCommandLineSaysWhatToDo(t *testing.T) {
	tests := []struct {
		name string
		args []string
		code int
		want string
	}{
		{"unknown command", []string{"serv"}, 2, `sluice: unknown command "serv"; did you mean "serve"?`},
		{"unknown command with a slip", []string{"valdiate"}, 2, `sluice: unknown command "valdiate"; did you mean "validate"?`},
		{"unknown command like no other", []string{"xyzzy"}, 2, `sluice: unknown command "xyzzy"; see sluice --help`},
		{"unknown flag", []string{"serve", "--port", "1"}, 2, "sluice: unknown flag: --port; see sluice serve --help"},
		{"bad value", []string{"serve", "--grace", "x"}, 2, `sluice: invalid argument "x" for "--grace"`},
		{"argument", []string{"serve", "now"}, 2, `sluice: unexpected argument "now"; see sluice serve --help`},
		{"bad setting", []string{"serve", "--listen", "here"}, 2, `sluice: listen "here": want host:port or :port`},
		{"demo rate", []string{"demo", "--rate", "1e9"}, 2, "sluice: --rate 1e+09: want 0 to 2000 RPCs per second"},
		{"demo duration", []string{"demo", "--duration", "-1s"}, 2, "sluice: --duration -1s: want no negative time"},
	}
	for _, test := range tests {
		stdout, stderr, code := invoke(t.Context(), test.args...)
		if code != test.code || stdout != "" || !strings.HasPrefix(stderr, test.want) {
			t.Errorf("%s: exit %d, stdout %q, stderr %q, want %d, nothing, %q", test.name, code, stdout, stderr, test.code, test.want)
		}
	}
}

func TestCommandLineHelps(t *testing.T) {
	tests := []struct {
		name string
		args []string
		want string
	}{
		{"no argument", nil, "Available Commands:"},
		{"help", []string{"--help"}, "Available Commands:"},
		{"version", []string{"version"}, "sluice devel (go"},
		{"completion", []string{"completion", "bash"}, "# bash completion V2 for sluice"},
		{"serve", []string{"serve", "--help"}, "SLUICE_TLS_CERT"},
	}
	for _, test := range tests {
		stdout, stderr, code := invoke(t.Context(), test.args...)
		if code != 0 || stderr != "" || !strings.Contains(stdout, test.want) {
			t.Errorf("%s: exit %d, stdout %q, stderr %q, want %q in stdout", test.name, code, stdout, stderr, test.want)
		}
	}
}
