package cli

import (
	"encoding/pem"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// tlsServer serves the user's fake in TLS, with a certificate that nobody knows.
func (u *user) tlsServer() *httptest.Server {
	u.fake.token = "good"
	server := httptest.NewUnstartedServer(u.fake.handler())
	server.EnableHTTP2 = true
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	server.StartTLS()
	u.t.Cleanup(server.Close)
	return server
}

func TestLoginRemembersAServerByItsFingerprint(t *testing.T) {
	u := newUser(t)
	server := u.tlsServer()

	u.stdin = "good\n"
	got := u.run("login", server.URL, "--context", "prod")
	_, pinned, found := strings.Cut(got.stderr, "--fingerprint ")
	if pinned = strings.TrimSpace(pinned); got.code != 1 || !found || pinned != shownFingerprint(fingerprint(server.Certificate())) {
		t.Fatalf("got exit %d, %q, want the fingerprint", got.code, got.stderr)
	}

	if got := u.run("login", server.URL, "--context", "prod", "--fingerprint", strings.Repeat("00", 32)); got.code != 1 || !strings.Contains(got.stderr, "want 00:00:") {
		t.Errorf("another fingerprint: got exit %d, %q", got.code, got.stderr)
	}

	got = u.run("login", server.URL, "--context", "prod", "--fingerprint", "SHA256:"+strings.ToLower(pinned))
	if want := "signed in to " + server.URL + " as token deploy (operator); context prod\n"; got.code != 0 || got.stdout != want {
		t.Fatalf("got exit %d, %q, %q, want %q", got.code, got.stdout, got.stderr, want)
	}
	if got := u.run("get", "routes", "-o", "name"); got.code != 0 || !strings.Contains(got.stdout, "default/cart") {
		t.Errorf("with the context: got exit %d, %q", got.code, got.stderr)
	}
	info, err := os.Stat(filepath.Join(u.opts.ConfigDir, "contexts.yaml"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("contexts.yaml: %v, %v, want it for the owner alone", info.Mode(), err)
	}
	if dir, _ := os.Stat(u.opts.ConfigDir); dir.Mode().Perm() != 0o700 {
		t.Errorf("its folder: %v", dir.Mode())
	}
}

func TestLoginTakesAnAuthority(t *testing.T) {
	u := newUser(t)
	server := u.tlsServer()
	u.write("ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	u.write("token", "good\n")
	if got := u.run("login", server.URL, "--ca-file", "ca.pem", "--token-file", "token"); got.code != 0 || !strings.Contains(got.stdout, "context 127.0.0.1\n") {
		t.Fatalf("got exit %d, %q", got.code, got.stderr)
	}
	t.Chdir("/") // the context has the file by its full name
	if got := u.run("status"); got.code != 0 {
		t.Errorf("got exit %d, %q", got.code, got.stderr)
	}
}

func TestLoginRefusesAWrongToken(t *testing.T) {
	u := newUser(t)
	server := u.tlsServer()
	u.stdin = "stale"
	got := u.run("login", server.URL, "--fingerprint", fingerprint(server.Certificate()))
	if got.code != 1 || !strings.Contains(got.stderr, "the token is not known there") {
		t.Errorf("got exit %d, %q", got.code, got.stderr)
	}
	if got := u.run("context", "list"); !strings.Contains(got.stderr, "there are none") {
		t.Errorf("it was remembered: %q", got.stdout)
	}
}

func TestLoginSendsNoTokenInClearText(t *testing.T) {
	u := newUser(t)
	u.env["SLUICE_TOKEN"] = "good"
	got := u.run("context", "add", "prod", "http://gateway.example.com:8081")
	if got.code != 2 || !strings.Contains(got.stderr, "clear text") {
		t.Errorf("got exit %d, %q", got.code, got.stderr)
	}
}

func TestContextsAreChosenByName(t *testing.T) {
	u := newUser(t)
	socket := "unix:" + filepath.Join(u.dir, socketName)
	steps := []struct {
		args []string
		code int
		want string // in either output
	}{
		{[]string{"context", "list"}, 0, "there are none"},
		{[]string{"context", "use", "here"}, 2, "there are none yet"},
		{[]string{"context", "add", "here", socket}, 0, ""},
		{[]string{"context", "add", "gone", "unix:/nowhere/admin.sock"}, 0, ""},
		{[]string{"context", "use", "nothing"}, 2, "known are here, gone"},
		{[]string{"context", "use", "gone"}, 0, ""},
		{[]string{"status"}, 1, "/nowhere/admin.sock: no server runs here"},
		{[]string{"status", "--context", "here"}, 0, "1.2.3"},
		{[]string{"context", "list"}, 0, "*        gone  unix:/nowhere/admin.sock"},
		{[]string{"context", "use", "-"}, 0, ""},
		{[]string{"status"}, 0, "1.2.3"},
		{[]string{"context", "use", "gone"}, 0, ""},
		{[]string{"context", "delete", "gone"}, 0, ""},
		{[]string{"context", "delete", "gone"}, 2, "known are here"},
		{[]string{"status"}, 0, "1.2.3"},
	}
	for _, step := range steps {
		got := u.run(step.args...)
		if got.code != step.code || !strings.Contains(got.stdout+got.stderr, step.want) {
			t.Errorf("%v: got exit %d, %q, %q, want %d, %q", step.args, got.code, got.stdout, got.stderr, step.code, step.want)
		}
	}
}
