package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"connectrpc.com/connect"
)

func TestTargetIsTheFirstThatIsNamed(t *testing.T) {
	const known = `current: prod
contexts:
- {name: prod, server: "https://prod:8081", token: of-prod}
- {name: test, server: "unix:/run/test/admin.sock"}
`
	tests := []struct {
		name      string
		flags     program
		dataDir   bool
		env       map[string]string
		noCurrent bool
		want      string // the URL or the socket, and the token
	}{
		{"the current context", program{}, false, nil, false, "https://prod:8081 of-prod"},
		{"the server of this machine", program{}, false, nil, true, "/var/lib/sluice/admin.sock "},
		{"its folder in the environment", program{}, false, map[string]string{"SLUICE_DATA_DIR": "/d"}, true, "/d/admin.sock "},
		{"the environment's folder is no reason to leave the context", program{}, false, map[string]string{"SLUICE_DATA_DIR": "/d"}, false, "https://prod:8081 of-prod"},
		{"a context by flag", program{context: "test"}, false, map[string]string{"SLUICE_SERVER": "http://localhost:1"}, false, "/run/test/admin.sock "},
		{"a context by variable", program{}, false, map[string]string{"SLUICE_CONTEXT": "test"}, false, "/run/test/admin.sock "},
		{"a folder by flag", program{dataDir: "/e"}, true, map[string]string{"SLUICE_SERVER": "http://localhost:1"}, false, "/e/admin.sock "},
		{"a server by variable", program{}, false, map[string]string{"SLUICE_SERVER": "http://localhost:1", "SLUICE_TOKEN": "t"}, false, "http://localhost:1 t"},
		{"a server by flag", program{server: "https://gw:1/", context: "test"}, false, map[string]string{"SLUICE_TOKEN": " t\n"}, false, "https://gw:1 t"},
		{"a socket by flag", program{server: "unix:///run/a.sock"}, false, nil, false, "/run/a.sock "},
		{"the token of the environment is not for a context", program{context: "prod"}, false, map[string]string{"SLUICE_TOKEN": "t"}, false, "https://prod:8081 of-prod"},
		{"nor for a socket", program{dataDir: "/e"}, true, map[string]string{"SLUICE_TOKEN": "t"}, false, "/e/admin.sock "},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := test.flags
			p.DataDir, p.ConfigDir = "/var/lib/sluice", t.TempDir()
			p.Getenv = func(name string) string { return test.env[name] }
			text := known
			if test.noCurrent {
				text = strings.Replace(known, "current: prod\n", "", 1)
			}
			if err := os.WriteFile(filepath.Join(p.ConfigDir, "contexts.yaml"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			at, err := p.target(test.dataDir, strings.NewReader(""))
			if err != nil {
				t.Fatal(err)
			}
			got := at.url + " " + at.token
			if at.socket != "" {
				got = at.socket + " " + at.token
			}
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestTargetRefusesWhatCannotWork(t *testing.T) {
	long := "/" + strings.Repeat("x", 100)
	tests := []struct {
		name  string
		flags program
		stdin string
		want  string
	}{
		{"a socket's path that is too long", program{server: "unix:" + long + "/admin.sock"}, "", "socket path \"" + long + "/admin.sock\" of 112 bytes, limit 107"},
		{"a token in clear text", program{server: "http://gateway:8081", tokenFile: "-"}, "secret\n", "the token would cross the network in clear text; use https"},
		{"an empty token", program{server: "https://gateway:8081", tokenFile: "-"}, "\n", "read token from -: the first line is empty"},
		{"much that is no token", program{server: "https://gateway:8081", tokenFile: "-"}, strings.Repeat("x", 5000), "more than 4096 bytes, limit 4096"},
		{"a path", program{server: "https://gateway:8081/admin"}, "", "want a URL such as"},
		{"another scheme", program{server: "ftp://gateway"}, "", "want a URL such as"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := test.flags
			p.Getenv, p.ConfigDir = func(string) string { return "" }, t.TempDir()
			_, err := p.target(false, strings.NewReader(test.stdin))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestTargetTakesATokenInClearTextOnThisMachine(t *testing.T) {
	for _, server := range []string{"http://localhost:1", "http://127.0.0.1:1", "http://[::1]:1"} {
		p := program{server: server, tokenFile: "-"}
		p.Getenv = func(string) string { return "" }
		if _, err := p.target(false, strings.NewReader("secret")); err != nil {
			t.Errorf("%s: %v", server, err)
		}
	}
}

func TestContextsSayWhatIsWrongWithTheirFile(t *testing.T) {
	p := program{}
	p.ConfigDir = t.TempDir()
	if err := os.WriteFile(filepath.Join(p.ConfigDir, "contexts.yaml"), []byte("contexts: []\ncolour: red\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := p.contexts()
	if err == nil || !strings.Contains(err.Error(), "line 2: field colour not found") {
		t.Errorf("got %v, want the line and the field", err)
	}
}

func TestFailureSaysWhatToDo(t *testing.T) {
	socket := &target{name: "/run/admin.sock", socket: "/run/admin.sock"}
	remote := &target{name: "https://gw:8081", url: "https://gw:8081"}
	local := func(err error) error { return connect.NewError(connect.CodeUnavailable, err) }
	dial := func(errno syscall.Errno) error {
		return local(&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", errno)})
	}
	tests := []struct {
		name string
		at   *target
		err  error
		want string
	}{
		{"no permission", socket, dial(syscall.EACCES), "/run/admin.sock: permission denied; it is for root and the user who runs the server: use sudo, or --server with a token"},
		{"no socket", socket, dial(syscall.ENOENT), "/run/admin.sock: no server runs here; start one with sluice serve"},
		{"a socket that was left", socket, dial(syscall.ECONNREFUSED), "/run/admin.sock: the server that had this socket has ended; start one with sluice serve"},
		{"nobody listens", remote, dial(syscall.ECONNREFUSED), "https://gw:8081: nobody listens there"},
		{"no such host", remote, local(&net.DNSError{Name: "gw", Err: "no such host"}), `https://gw:8081: host "gw" is not known; check the URL`},
		{"too late", remote, connect.NewError(connect.CodeDeadlineExceeded, errors.New("deadline")), "https://gw:8081: no answer in time; what was asked for may have been done"},
		{"a server that ended", socket, local(fmt.Errorf("post: %w", io.ErrUnexpectedEOF)), "/run/admin.sock" + serverEnded[:len(serverEnded)-1]},
		{"a connection that was cut", remote, local(&net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)}), "https://gw:8081" + serverEnded[:len(serverEnded)-1]},
		{"something else", remote, local(fmt.Errorf("post: %w", errors.New("broken pipe"))), "https://gw:8081: broken pipe"},
		{"not of the API", remote, fs.ErrExist, "file already exists"},
	}
	for _, test := range tests {
		c := &call{client: &client{at: test.at}, notes: new(strings.Builder)}
		if got := c.inWords(test.err); got == nil || !strings.HasPrefix(got.Error(), test.want) {
			t.Errorf("%s: got %v, want %s", test.name, got, test.want)
		}
	}
}

const serverEnded = ": the server ended before it answered; what was asked for may have been done: sluice history tells\n"

func TestClientTellsWhichServerItMet(t *testing.T) {
	u := newUser(t)
	tests := []struct {
		name    string
		handler http.HandlerFunc
		want    string
	}{
		{"another kind of server", http.NotFound, "no admin API there; is it the server's --admin address?"},
		{"a redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://elsewhere.example.com/", http.StatusTemporaryRedirect)
		}, "307"},
		{"a port in TLS", func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "client sent an HTTP request to an HTTPS server", http.StatusBadRequest)
		}, "that port takes TLS only; use https://127.0.0.1:"},
		{"a port that cannot read", func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "bad request", http.StatusBadRequest)
		}, "it cannot read the request; if it speaks TLS, use https://"},
		{"a server that ends", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, serverEnded},
		{"a server that ends in its answer", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/proto")
			w.Header().Set("Content-Length", "100")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, serverEnded},
		{"no token", func(w http.ResponseWriter, r *http.Request) {
			_ = connect.NewErrorWriter().Write(w, r, connect.NewError(connect.CodeUnauthenticated, errors.New("sign in, or send a token")))
		}, "sign in, or send a token; sluice login "},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			server := httptest.NewServer(test.handler)
			defer server.Close()
			got := u.run("get", "routes", "--server", server.URL)
			if got.code != 1 || !strings.Contains(got.stderr, test.want) {
				t.Errorf("got exit %d, %q, want %q", got.code, got.stderr, test.want)
			}
			if got := u.run("get", "routes", "--server", strings.Replace(server.URL, "http:", "https:", 1)); !strings.Contains(got.stderr, "it does not speak TLS; use http://") {
				t.Errorf("by https: got %q", got.stderr)
			}
		})
	}
}

func TestLoginSaysThatAPortTakesTLSOnly(t *testing.T) {
	u := newUser(t)
	// As the admin port refuses clear text, and as Go's own server does.
	port := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "This port takes TLS only", http.StatusBadRequest)
	}))
	defer port.Close()
	for _, server := range []string{port.URL, strings.Replace(u.tlsServer().URL, "https:", "http:", 1)} {
		u.stdin = "good\n"
		want := "sluice: " + server + ": that port takes TLS only; use https" + strings.TrimPrefix(server, "http") + "\n"
		if got := u.run("login", server); got.code != 1 || got.stderr != want {
			t.Errorf("got exit %d, %q, want %q", got.code, got.stderr, want)
		}
	}
}

func TestSocketLeftBehindIsNamed(t *testing.T) {
	u := newUser(t)
	path := filepath.Join(u.dir, "old")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
	got := u.run("status", "--server", "unix:"+path)
	if got.code != 1 || !strings.Contains(got.stderr, "the server that had this socket has ended") {
		t.Errorf("got exit %d, %q", got.code, got.stderr)
	}
}

func TestServiceIsHintedAtWhenTheUsersOwnServerDoesNotRun(t *testing.T) {
	u := newUser(t)
	u.opts.DataDir = "/nowhere"
	if got := u.run("status"); !strings.Contains(got.stderr, "start one with sluice serve") {
		t.Errorf("without a service: %q", got.stderr)
	}
	u.opts.SystemDir = u.dir
	if got := u.run("status"); !strings.Contains(got.stderr, "no server runs here, but one runs as a service: use sudo") {
		t.Errorf("with one: %q", got.stderr)
	}
	if got := u.run("status", "--data-dir", "/nowhere"); !strings.Contains(got.stderr, "start one with sluice serve") {
		t.Errorf("when a folder is named: %q", got.stderr)
	}
}

func TestClientSaysThatItIsTheCommandLine(t *testing.T) {
	u := newUser(t)
	u.run("status")
	if len(u.fake.agents) != 1 || u.fake.agents[0] != "sluice-cli/1.2.3" {
		t.Errorf("got %q", u.fake.agents)
	}
}

func listenUnix(t *testing.T, path string) net.Listener {
	t.Helper()
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	return ln
}
