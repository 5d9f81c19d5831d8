package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	adminv1 "sluice/admin/v1"
	shopv1 "sluice/demo/shop/v1"
)

// The node is told that it may use siegeLimit, which is what it tells itself in a
// container of siegeMemory bytes.
const (
	siegeLimit  = "576MiB"
	siegeMemory = 768 << 20
)

// siegeSlack is by how much the race detector slows the node down, and swells it.
var siegeSlack = func() time.Duration {
	if build, ok := debug.ReadBuildInfo(); ok && slices.Contains(build.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		return 8
	}
	return 1
}()

// siege is a node in a process of its own that is attacked while RPCs pass it.
type siege struct {
	t      *testing.T
	p      *process
	o      *operator
	access adminv1.AccessServiceClient // of the socket
	data   string
	admin  string // address of the admin port
	port   *http.Client
	socket *http.Client
	peace  uint64 // bytes of memory before the first attack
	worst  uint64 // the most that was seen, bytes
	tokens int
}

func besiege(t *testing.T) *siege {
	shop := startShop(t, "v1", "v2")
	s := &siege{t: t, data: t.TempDir()}
	s.p = startProcess(t, "export GOMEMLIMIT="+siegeLimit+"; "+serveHere, s.data)
	s.admin = s.p.log.await(t, `msg=serving listen=\S+ admin=(\S+)`)[1]
	s.port = besieger(t, func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", s.admin)
	})
	s.socket = besieger(t, func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(s.data, "admin.sock"))
	})
	s.access = adminv1.NewAccessServiceClient(s.socket, "http://localhost")
	s.o = operate(t, s.data)
	s.o.apply(canary(shop))
	s.peace = s.memory(t, "VmRSS")
	return s
}

func besieger(t *testing.T, dial func(context.Context, string, string) (net.Conn, error)) *http.Client {
	transport := &http.Transport{DialContext: dial, DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience * siegeSlack}
}

// load calls until the function that it returns is. Each RPC must be answered.
func (s *siege) load() (stop func()) {
	conn, err := grpc.NewClient("passthrough:///"+s.p.listen, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		s.t.Fatal(err)
	}
	cart := shopv1.NewCartClient(conn)
	var over atomic.Bool
	var answered int
	var slowest time.Duration
	var loaded sync.WaitGroup
	loaded.Go(func() {
		for !over.Load() {
			begin := time.Now()
			if _, err := cart.Get(s.t.Context(), &shopv1.GetRequest{Id: "1"}); err != nil {
				s.t.Errorf("an RPC came to harm: %v", err)
				return
			}
			slowest = max(slowest, time.Since(begin))
			answered++
		}
	})
	return func() {
		over.Store(true)
		loaded.Wait()
		conn.Close()
		s.t.Logf("%d RPCs were answered meanwhile, the slowest in %v", answered, slowest)
		if slowest > 2*time.Second*siegeSlack {
			s.t.Errorf("an RPC took %v", slowest)
		}
	}
}

// memory is a line of the process's status, bytes. See proc_pid_status(5).
func (s *siege) memory(t *testing.T, name string) uint64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(name + `:\s+(\d+) kB`).FindSubmatch(text)
	if found == nil {
		t.Fatalf("no %s in %s", name, text)
	}
	kilobytes, err := strconv.ParseUint(string(found[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kilobytes << 10
}

// stands is everything that an attack must not change.
func (s *siege) stands(t *testing.T) string {
	t.Helper()
	reply, err := s.o.node.Status(t.Context(), connect.NewRequest(&adminv1.StatusRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	m := reply.Msg
	return fmt.Sprintf("sequence %d, programmed %d, ready %v, problems %q, digest %s",
		m.GetSequence(), m.GetProgrammed(), m.GetReady(), m.GetProblems(), m.GetDigest())
}

// withstands runs one attack, and wants the node to be what it was.
func (s *siege) withstands(name string, attack func(t *testing.T)) {
	s.t.Run(name, func(t *testing.T) {
		before := s.stands(t)
		// The high-water mark of the memory begins anew: proc_pid_clear_refs(5).
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", s.p.cmd.Process.Pid), []byte("5"), 0); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		attack(t)
		took := time.Since(begin)
		if after := s.stands(t); after != before {
			t.Errorf("something changed:\nbefore %s\nafter  %s", before, after)
		}
		peak := s.memory(t, "VmHWM")
		s.worst = max(s.worst, peak)
		t.Logf("%v, %d MiB of memory at most", took.Round(time.Millisecond), peak>>20)
		if peak > siegeMemory*uint64(siegeSlack) {
			t.Errorf("the process took %d MiB, limit %d MiB", peak>>20, siegeMemory>>20)
		}
	})
}

// attacker is somebody with a token.
type attacker struct {
	name, secret, id string
}

// token makes one for each attack: the audit log has a line for the first refusals of
// each.
func (s *siege) token(t *testing.T) attacker {
	t.Helper()
	s.tokens++
	name := fmt.Sprintf("attacker-%d", s.tokens)
	reply, err := s.access.CreateToken(t.Context(), connect.NewRequest(&adminv1.CreateTokenRequest{Name: name, Role: adminv1.Role_ROLE_ADMIN}))
	if err != nil {
		t.Fatal(err)
	}
	return attacker{"token " + name, reply.Msg.GetSecret(), reply.Msg.GetToken().GetId()}
}

// wantLine wants a refusal in the audit log, the newest of an actor.
func (s *siege) wantLine(t *testing.T, actor, action, why string) {
	t.Helper()
	reply, err := s.access.Audit(t.Context(), connect.NewRequest(&adminv1.AuditRequest{Actor: actor, Refused: true, Limit: 10}))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range reply.Msg.GetEntries() {
		if line.GetAction() == action && strings.Contains(line.GetWhy(), why) {
			return
		}
	}
	t.Errorf("no line of %q, refused %s with %q, in the audit log: %v", actor, action, why, reply.Msg.GetEntries())
}

// post sends one request in JSON, or what its header says, and returns the answer.
func post(t *testing.T, client *http.Client, path, token string, body io.Reader, header ...string) (status int, text string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://localhost"+path, body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
		}
		r.Header.Set(header[i], header[i+1])
	}
	reply, err := client.Do(r)
	if err != nil {
		t.Errorf("no answer: %v", err)
		return 0, ""
	}
	defer reply.Body.Close()
	answer, err := io.ReadAll(reply.Body)
	if err != nil {
		t.Errorf("half an answer: %v", err)
	}
	return reply.StatusCode, string(answer)
}

// message is what an answer in JSON says.
func message(t *testing.T, text string) string {
	t.Helper()
	var m struct{ Code, Message string }
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		t.Errorf("answered %.200q, want JSON", text)
	}
	return m.Code + ": " + m.Message
}

// applyBody is a request of Apply.
func applyBody(text string) []byte {
	body, _ := json.Marshal(map[string]string{"text": text, "file": "bad.yaml"})
	return body
}

func hostileBackend(name, more string) string {
	return "apiVersion: sluice.dev/v1alpha1\nkind: Backend\nmetadata: {name: " + name + more + "}\nspec: {endpoints: []}\n"
}

// billionLaughs is ten aliases of ten aliases, nine times over, as endpoints.
func billionLaughs() string {
	var b strings.Builder
	b.WriteString("x:\n- &a0 [lol]\n")
	for i := 1; i < 10; i++ {
		fmt.Fprintf(&b, "- &a%d [%s]\n", i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i-1), 10), ","))
	}
	return b.String() + strings.Replace(hostileBackend("a", ""), "[]", "*a9", 1)
}

func aThousandBad() string {
	var b strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&b, "---\n{apiVersion: sluice.dev/v1alpha1, kind: Backend, metadata: {name: \"Bad_%d\\0\"}, spec: {endpoints: [{address: nowhere}], x: y}}\n", i)
	}
	return b.String()
}

func hostileTexts() map[string][2]string { // what it is: the text, what the refusal says
	bad := func(name string) string { return hostileBackend(name, "") }
	return map[string][2]string{
		"malformed YAML":              {"kind: [unclosed\n  : x\n", "not YAML: did not find expected ',' or ']'"},
		"malformed JSON":              {`{"kind": "Backend", "metadata": {`, "not YAML: "},
		"aliases of aliases":          {billionLaughs(), "repeats another alias"},
		"an alias of itself":          {hostileBackend("a", ", labels: &l {x: *l}"), "repeats another alias"},
		"a merge of itself":           {hostileBackend("a", ", labels: &l {<<: *l}"), `merge key "<<" is not supported`},
		"depth in lists":              {strings.Repeat("[", 500_000), "exceeded max depth of 10000"},
		"depth in blocks":             {strings.Repeat("- ", 500_000) + "x", "exceeded max depth of 10000"},
		"depth in JSON":               {strings.Repeat(`{"a":`, 400_000), "exceeded max depth of 10000"},
		"depth in an object":          {bad("a") + "status: " + strings.Repeat("[", 9000) + strings.Repeat("]", 9000) + "\nx: y\n", "bad.yaml:6:1: x: unknown field"},
		"the same name twice":         {bad("a") + "---\n" + bad("a"), "Backend default/a is declared already, at bad.yaml:1"},
		"the same key twice":          {bad("a") + "kind: Backend\n", "kind: the key is there already"},
		"unknown kind":                {"apiVersion: v1\nkind: Secret\nmetadata: {name: a}\n", `unknown kind "Secret", want GRPCRoute, HTTPRoute, Backend, RPCPolicy or Schema`},
		"NUL":                         {bad("a\x00b"), "bad.yaml:3:19: control character 0x00"},
		"NUL in a name":               {bad(`"a\0b"`), `metadata.name: "a\x00b": want lower-case letters`},
		"control characters":          {bad(`"\e[2J\a"`), `metadata.name: "\x1b[2J\a": want lower-case letters`},
		"right to left":               {bad(`"a\u202eb"`), `metadata.name: "a\u202eb": want lower-case letters`},
		"a name with a line feed":     {bad(`"a\nb"`), `metadata.name: "a\nb": want lower-case letters`},
		"a thousand bad objects":      {aThousandBad(), "and 91 more"},
		"a type of another language":  {"!!python/object/apply:os.system [id]\n", "want a mapping"},
		"a route to itself":           {strings.Replace(hostileRoute("loop"), "kind: Backend", "kind: GRPCRoute", 1), "GRPCRoute"},
		"a route to nothing":          {hostileRoute("nothing"), "GRPCRoute default/loop refers to Backend default/nothing, which is not declared"},
		"a text that is too long":     {"#" + strings.Repeat("x", 17<<20), "17825793 bytes, limit 16777216"},
		"a document that is too long": {"#" + strings.Repeat(" x", 3<<19), "a document of 3145729 bytes, limit 2097152"},
		"nothing":                     {"", "declares nothing"},
	}
}

func hostileRoute(to string) string {
	return "apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {name: loop}\nspec: {rules: [{backendRefs: [{group: sluice.dev, kind: Backend, name: " + to + "}]}]}\n"
}

// What people and programs send by mistake, and others on purpose: each is refused
// with its reason and a line in the audit log, changes nothing, takes bounded memory,
// and no RPC comes to harm.
func TestServeWithstandsHostileInput(t *testing.T) {
	if siegeSlack > 1 && os.Getenv("SLUICE_HOSTILE_RACE") == "" {
		t.Skip("measures time and memory: make race has it without the race detector, make hostile-race with it")
	}
	s := besiege(t)
	defer s.p.end(syscall.SIGTERM)
	defer s.load()()
	for name, text := range hostileTexts() {
		s.withstands(name, func(t *testing.T) {
			a := s.token(t)
			for _, door := range []*http.Client{s.port, s.socket} {
				status, answer := post(t, door, adminv1.ResourceServiceApplyProcedure, a.secret, bytes.NewReader(applyBody(text[0])))
				if got := message(t, answer); status != http.StatusBadRequest || !strings.Contains(got, text[1]) {
					t.Errorf("answered %d %.300s, want 400 and %q", status, got, text[1])
				}
			}
			s.wantLine(t, a.name, "Apply", "bad.yaml")
		})
	}
	s.bodies()
	s.strangers()
	s.crowds()
	t.Logf("memory: %d MiB in peace, %d MiB at most", s.peace>>20, s.worst>>20)
}

// endless is a body without a length.
type endless struct{ left int }

func (e *endless) Read(p []byte) (int, error) {
	if e.left <= 0 {
		return 0, io.EOF
	}
	n := min(len(p), e.left)
	for i := range p[:n] {
		p[i] = 'x'
	}
	e.left -= n
	return n, nil
}

// gzipped is size bytes of a JSON text, compressed.
func gzipped(size int) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	io.WriteString(w, `{"text":"`)
	io.Copy(w, &endless{size})
	io.WriteString(w, `"}`)
	w.Close()
	return b.Bytes()
}

// bodies are those that are no request at all, or too large a one.
func (s *siege) bodies() {
	const large = 50 << 20
	bomb := gzipped(large)
	for name, b := range map[string]struct {
		body   func() io.Reader
		header []string
		want   string
	}{
		"half of a request":   {func() io.Reader { return strings.NewReader(`{"text": "`) }, nil, "invalid_argument: "},
		"depth of a request":  {func() io.Reader { return strings.NewReader(`{"text":` + strings.Repeat("[", 1<<20)) }, nil, "invalid_argument: "},
		"not UTF-8":           {func() io.Reader { return strings.NewReader("{\"text\": \"\xff\"}") }, nil, "invalid UTF-8"},
		"not protobuf":        {func() io.Reader { return strings.NewReader("\xff\xff\xff\xff") }, []string{"Content-Type", "application/proto"}, "invalid_argument: "},
		"50 MB":               {func() io.Reader { return bytes.NewReader(make([]byte, large)) }, nil, "resource_exhausted: a request of 52428800 bytes, limit 33555456"},
		"50 MB of any length": {func() io.Reader { return &endless{large} }, nil, "resource_exhausted: "},
		"50 MB compressed":    {func() io.Reader { return bytes.NewReader(bomb) }, []string{"Content-Encoding", "gzip"}, "resource_exhausted: "},
	} {
		s.withstands(name, func(t *testing.T) {
			a := s.token(t)
			var sent sync.WaitGroup
			for range 4 {
				sent.Go(func() {
					_, answer := post(t, s.port, adminv1.ResourceServiceApplyProcedure, a.secret, b.body(), b.header...)
					if got := message(t, answer); !strings.Contains(got, b.want) {
						t.Errorf("answered %.300s, want %q", got, b.want)
					}
				})
			}
			sent.Wait()
			s.wantLine(t, a.name, "Apply", "the request could not be read")
		})
	}
	s.withstands("the largest texts at once", func(t *testing.T) {
		a := s.token(t)
		// Few texts of that length have more nodes. Two are parsed at once, and of
		// each one document.
		body := applyBody(strings.Repeat("--- {a: ["+strings.Repeat("a,", 500_000)+"]}\n", 2))
		var sent sync.WaitGroup
		for range 3 {
			sent.Go(func() {
				_, answer := post(t, s.port, adminv1.ResourceServiceApplyProcedure, a.secret, bytes.NewReader(body))
				if got := message(t, answer); !strings.Contains(got, "invalid_argument: ") {
					t.Errorf("answered %.300s, want a refusal", got)
				}
			})
		}
		sent.Wait()
		s.wantLine(t, a.name, "Apply", "bad.yaml")
	})
}

const hostilePassword = "an example of a few words"

// strangers show credentials that do not count, or come from where nobody should.
func (s *siege) strangers() {
	apply := applyBody(hostileBackend("evil", ""))
	refused := func(t *testing.T, secret string, status int, want string, header ...string) {
		t.Helper()
		got, answer := post(t, s.port, adminv1.ResourceServiceApplyProcedure, secret, bytes.NewReader(apply), header...)
		if text := message(t, answer); got != status || !strings.Contains(text, want) {
			t.Errorf("answered %d %s, want %d and %q", got, text, status, want)
		}
		s.wantLine(t, "", "Apply", want)
	}
	const unknown = "the token is unknown, has expired or was revoked"
	s.withstands("no token", func(t *testing.T) { refused(t, "", 401, "sign in, or send a token") })
	s.withstands("wrong token", func(t *testing.T) {
		a := s.token(t)
		refused(t, a.secret[:len(a.secret)-1]+"-", 401, unknown)
	})
	s.withstands("stale token", func(t *testing.T) {
		a := s.token(t)
		if _, err := s.access.RevokeToken(t.Context(), connect.NewRequest(&adminv1.RevokeTokenRequest{Id: a.id})); err != nil {
			t.Fatal(err)
		}
		refused(t, a.secret, 401, unknown)
	})
	s.withstands("forged Host", func(t *testing.T) {
		refused(t, s.token(t).secret, 403, `"evil.test" is not a name of this node`, "Host", "evil.test")
	})
	s.withstands("forged Origin", func(t *testing.T) {
		refused(t, s.token(t).secret, 403, "the page of another site", "Origin", "https://evil.test")
	})
	s.withstands("set-up link used twice", s.setUpTwice)
	s.withstands("session replayed", func(t *testing.T) {
		cookie := s.signIn(t)
		refused(t, "", 403, "the page of another site", "Cookie", cookie, "Origin", "https://evil.test", "Sec-Fetch-Site", "cross-site")
		refused(t, "", 403, "has to say which origin", "Cookie", cookie)
		own := []string{"Cookie", cookie, "Origin", "http://localhost", "Sec-Fetch-Site", "same-origin"}
		if status, answer := post(t, s.port, adminv1.AccessServiceSignOutProcedure, "", strings.NewReader("{}"), own...); status != 200 {
			t.Fatalf("signing out: %d %s", status, answer)
		}
		refused(t, "", 401, "the session has ended; sign in again", own...)
	})
	s.withstands("guessed passwords", func(t *testing.T) {
		guess := `{"name": "alice", "password": "a guess of some words"}`
		var last string
		for range 8 {
			_, answer := post(t, s.port, adminv1.AccessServiceSignInProcedure, "", strings.NewReader(guess))
			last = message(t, answer)
		}
		if !strings.Contains(last, "resource_exhausted") {
			t.Errorf("the eighth guess was answered %s, want resource_exhausted", last)
		}
	})
}

// setUpTwice makes the first administrator by a link, and wants it to be of no use then.
func (s *siege) setUpTwice(t *testing.T) {
	link, err := s.access.CreateSetUpLink(t.Context(), connect.NewRequest(&adminv1.CreateSetUpLinkRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	_, secret, _ := strings.Cut(link.Msg.GetUrls()[0], "#")
	setUp := func(name string) (int, string) {
		body, _ := json.Marshal(map[string]string{"secret": secret, "name": name, "password": hostilePassword})
		return post(t, s.port, adminv1.AccessServiceSetUpProcedure, "", bytes.NewReader(body))
	}
	if status, answer := setUp("alice"); status != 200 {
		t.Fatalf("the first use was answered %d %s", status, answer)
	}
	const want = "this link has been used"
	if status, answer := setUp("mallory"); status != 403 || !strings.Contains(message(t, answer), want) {
		t.Errorf("the second use was answered %d %s, want 403 and %q", status, answer, want)
	}
	s.wantLine(t, "", "SetUp", want)
	accounts, err := s.access.ListAccounts(t.Context(), connect.NewRequest(&adminv1.ListAccountsRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	if got := accounts.Msg.GetAccounts(); len(got) != 1 || got[0].GetName() != "alice" {
		t.Errorf("accounts %v, want alice alone", got)
	}
}

// signIn returns the cookie of a session.
func (s *siege) signIn(t *testing.T) string {
	t.Helper()
	body := `{"name": "alice", "password": "` + hostilePassword + `"}`
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://localhost"+adminv1.AccessServiceSignInProcedure, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	reply, err := s.port.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	if len(reply.Cookies()) != 1 {
		t.Fatalf("signing in: %s, cookies %v", reply.Status, reply.Cookies())
	}
	return reply.Cookies()[0].Name + "=" + reply.Cookies()[0].Value
}

// crowds hold on to what they have opened.
func (s *siege) crowds() {
	s.withstands("a hundred slow bodies", func(t *testing.T) {
		a := s.token(t)
		for i := range 100 {
			text := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: 30000000\r\n",
				adminv1.ResourceServiceApplyProcedure, a.secret)
			if i%2 == 0 { // the others do not even end their header
				text += "\r\n{\"text\":"
			}
			s.connect(t, text)
		}
		s.answersAtOnce(t)
	})
	s.withstands("a thousand cancelled watches", func(t *testing.T) {
		a := s.token(t)
		client := adminv1.NewResourceServiceClient(s.port, "http://localhost")
		var gone sync.WaitGroup
		for range 50 {
			gone.Go(func() {
				for i := range 20 {
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*time.Millisecond)
					request := connect.NewRequest(&adminv1.WatchRequest{Initial: true})
					request.Header().Set("Authorization", "Bearer "+a.secret)
					if stream, err := client.Watch(ctx, request); err == nil {
						stream.Receive()
						stream.Close()
					}
					cancel()
				}
			})
		}
		gone.Wait()
		s.awaitWatch(t, func(err error) bool { return err == nil })
	})
	s.t.Run("a hundred watchers that do not read", s.watchersThatDoNotRead)
}

// watchersThatDoNotRead hold up nobody who writes.
func (s *siege) watchersThatDoNotRead(t *testing.T) {
	a := s.token(t)
	const envelope = "\x00\x00\x00\x00\x10{\"initial\":true}"
	for range 60 {
		s.connect(t, fmt.Sprintf("POST %s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\nContent-Type: application/connect+json\r\nContent-Length: %d\r\n\r\n%s",
			adminv1.ResourceServiceWatchProcedure, a.secret, len(envelope), envelope))
	}
	conn, err := grpc.NewClient("passthrough:///"+s.admin, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+a.secret)
	for range 40 {
		stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, adminv1.ResourceServiceWatchProcedure, grpc.WaitForReady(true))
		if err != nil {
			t.Fatal(err)
		}
		// One beyond the limit may be refused before it has asked.
		if err := stream.SendMsg(&adminv1.WatchRequest{Initial: true}); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		stream.CloseSend()
	}
	s.awaitWatch(t, func(err error) bool {
		return connect.CodeOf(err) == connect.CodeResourceExhausted && strings.Contains(err.Error(), "64 watches are open, which is the limit")
	})

	var slowest time.Duration
	for i := range 30 {
		begin := time.Now()
		s.o.apply(hostileBackend("large", fmt.Sprintf(", annotations: {n: '%d', large: %s}", i, strings.Repeat("x", 200<<10))))
		slowest = max(slowest, time.Since(begin))
	}
	s.answersAtOnce(t)
	peak := s.memory(t, "VmHWM")
	s.worst = max(s.worst, peak)
	t.Logf("30 changes of 200 KiB, the slowest in %v, %d MiB of memory at most", slowest, peak>>20)
	if slowest > time.Second*siegeSlack {
		t.Errorf("a change took %v", slowest)
	}
	if peak > siegeMemory*uint64(siegeSlack) {
		t.Errorf("the process took %d MiB, limit %d MiB", peak>>20, siegeMemory>>20)
	}
}

// connect opens a connection to the admin port, writes a text, and reads nothing until
// the test ends.
func (s *siege) connect(t *testing.T, text string) {
	t.Helper()
	conn, err := net.Dial("tcp", s.admin)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.(*net.TCPConn).SetReadBuffer(4 << 10)
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
}

// answersAtOnce wants both doors to be open to others.
func (s *siege) answersAtOnce(t *testing.T) {
	t.Helper()
	a := s.token(t)
	begin := time.Now()
	for _, door := range []*http.Client{s.port, s.socket} {
		if status, answer := post(t, door, adminv1.NodeServiceStatusProcedure, a.secret, strings.NewReader("{}")); status != 200 {
			t.Errorf("answered %d %s", status, answer)
		}
	}
	if took := time.Since(begin); took > time.Second*siegeSlack {
		t.Errorf("others were answered after %v", took)
	}
}

// awaitWatch opens watches until the outcome of one is what is wanted.
func (s *siege) awaitWatch(t *testing.T, want func(error) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		stream, err := s.o.resources.Watch(ctx, connect.NewRequest(&adminv1.WatchRequest{Initial: true}))
		if err == nil {
			if !stream.Receive() {
				err = stream.Err()
			}
			stream.Close()
		}
		if want(err) {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("after %v a watch ended with %v", patience, err)
		}
	}
}
