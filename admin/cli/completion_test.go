package cli

import (
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// complete is what a shell would offer for the last of args.
func (u *user) complete(args ...string) []string {
	u.t.Helper()
	got := u.run(append([]string{"__complete"}, args...)...)
	var words []string
	for line := range strings.Lines(got.stdout) {
		word, _, _ := strings.Cut(strings.TrimSpace(line), "\t")
		if !strings.HasPrefix(word, ":") { // the directive
			words = append(words, word)
		}
	}
	return words
}

func TestCompletionKnowsWhatIsThere(t *testing.T) {
	u := newUser(t)
	u.run("context", "add", "prod", "unix:/nowhere/admin.sock")
	tests := []struct {
		args, want string
	}{
		{"get ", "backend httproute policy registration route schema"},
		{"get routes ", "cart shop/any"},
		{"get routes -n shop ", "any"},
		{"describe backend ", "cart-v1 cart-v2"},
		{"describe backend cart-v1 ", ""},
		{"delete backend cart-v1 ", "cart-v2"},
		{"split ", "cart/all shop/any/0"},
		{"split cart/all ", "cart-v1= cart-v2="},
		{"split cart/all cart-v1=90 ", "cart-v2="},
		{"rollback route cart ", "1777908600000.0@k3f9x2ab 1777728900000.0@k3f9x2ab"},
		{"rollback ", "backend httproute policy registration route schema"},
		{"backend drain ", "cart-v1 cart-v2"},
		{"backend drain cart-v1 ", "10.0.0.11:50051 10.0.0.13:50051"},
		{"backend drain cart-v1 10.0.0.11:50051 ", "10.0.0.13:50051"},
		{"backend undrain cart-v1 ", "10.0.0.12:50051"},
		{"backend list ", "cart-v1 cart-v2"},
		{"backend register ", "cart-v1 cart-v2"},
		{"backend register cart-v1 ", ""},
		{"backend deregister cart-v1 ", "10.0.0.13:50051"},
		{"backend rebalance ", "cart-v1 cart-v2"},
		{"route disable ", "cart shop/any"},
		{"conflicts show ", "backend route"},
		{"conflicts take route ", "cart"},
		{"conflicts take backend cart-v1 ", "1777908060000.0@qqqqqqqq 1777908360000.0@zz9h2k3m"},
		{"conflicts keep backend cart-v1 ", ""},
		{"conflicts show route -n shop ", ""},
		{"cluster keyring use ", "5d41402a 7d793037"},
		{"members -o ", "table wide json yaml"},
		{"split cart/all --wait ", "local all"},
		{"admin passwd ", "alice bob"},
		{"admin role bob ", "viewer operator admin"},
		{"admin token revoke ", "t7"},
		{"admin token create x --role ", "viewer operator admin registrar"},
		{"get routes -o ", "table json yaml name"},
		{"get routes --context ", "prod"},
		{"context use ", "prod"},
		{"completion ", "bash fish powershell zsh"},
		{"completion bash ", ""},
		{"get gateways ", ""},
		{"get routes --context prod ", ""},
		{"get routes --context nothing ", ""},
	}
	for _, test := range tests {
		if got := strings.Join(u.complete(strings.Split(test.args, " ")...), " "); got != test.want {
			t.Errorf("%s: got %q, want %q", test.args, got, test.want)
		}
	}
}

func TestCompletionWritesTheScriptOfAShell(t *testing.T) {
	u := newUser(t)
	for shell, want := range map[string]string{
		"bash": "# bash completion V2 for sluice", "fish": "# fish completion for sluice",
		"powershell": "# powershell completion for sluice", "zsh": "#compdef sluice",
	} {
		if got := u.run("completion", shell); got.code != 0 || !strings.Contains(got.stdout, want) {
			t.Errorf("%s: got exit %d, %d bytes, %q", shell, got.code, len(got.stdout), got.stderr)
		}
	}
	for _, test := range []struct{ args, want string }{
		{"completion nope", `unknown shell "nope", want bash, fish, powershell or zsh`},
		{"completion", "0 of 1 arguments; usage: sluice completion bash|fish|powershell|zsh"},
		{"completion bash more", `unexpected argument "more"; usage: sluice completion bash|fish|powershell|zsh`},
	} {
		if got := u.run(strings.Fields(test.args)...); got.code != 2 || got.stdout != "" || got.stderr != "sluice: "+test.want+"\n" {
			t.Errorf("%s: got exit %d, %q, %q", test.args, got.code, got.stdout, got.stderr)
		}
	}
}

func TestCompletionWaitsForNobody(t *testing.T) {
	u := newUser(t)
	// The connection is made, by the kernel; an answer never comes.
	silent := filepath.Join(u.dir, "silent")
	ln := listenUnix(t, silent)
	defer ln.Close()
	start := time.Now()
	if got := u.complete("get", "routes", "--server", "unix:"+silent, ""); len(got) > 0 {
		t.Errorf("got %q", got)
	}
	if waited := time.Since(start); waited > unaryTimeout/2 {
		t.Errorf("it took %s", waited)
	}
}
