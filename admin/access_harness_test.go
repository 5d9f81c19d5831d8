package admin

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	adminv1 "sluice/admin/v1"
	"sluice/store"
)

// cheap is a cost of hashes that tests can pay.
var cheap = passwordCost{memory: 8, passes: 1, threads: 1}

// memoryRecords are rows that are gone with the test.
type memoryRecords struct {
	mu   sync.RWMutex
	rows map[string][]byte
	full error // what an Update returns, when set
}

type memoryTx struct{ rows map[string][]byte }

func newMemoryRecords() *memoryRecords { return &memoryRecords{rows: map[string][]byte{}} }

func (m *memoryRecords) View(fn func(RecordsTx) error) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return fn(memoryTx{m.rows})
}

func (m *memoryRecords) Update(fn func(RecordsTx) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.full != nil {
		return m.full
	}
	changed := maps.Clone(m.rows)
	if err := fn(memoryTx{changed}); err != nil {
		return err
	}
	m.rows = changed
	return nil
}

func (tx memoryTx) Get(key string) ([]byte, bool, error) {
	value, ok := tx.rows[key]
	return value, ok, nil
}

func (tx memoryTx) Put(key string, value []byte) error {
	tx.rows[key] = bytes.Clone(value)
	return nil
}

func (tx memoryTx) Delete(key string) error {
	delete(tx.rows, key)
	return nil
}

func (tx memoryTx) Scan(from string, yield func(string, []byte) bool) error {
	for _, key := range slices.Sorted(maps.Keys(tx.rows)) {
		if key >= from && !yield(key, tx.rows[key]) {
			break
		}
	}
	return nil
}

func (tx memoryTx) ScanBack(from string, yield func(string, []byte) bool) error {
	keys := slices.Sorted(maps.Keys(tx.rows))
	slices.Reverse(keys)
	for _, key := range keys {
		if key <= from && !yield(key, tx.rows[key]) {
			break
		}
	}
	return nil
}

// state is everything that is kept but the audit log, to be compared. When somebody
// was last seen is left out.
func (m *memoryRecords) state() string {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(m.rows)) {
		if strings.HasPrefix(key, "audit") {
			continue
		}
		var row map[string]any
		json.Unmarshal(m.rows[key], &row)
		delete(row, "lastSeen")
		delete(row, "seen")
		text, _ := json.Marshal(row)
		b.WriteString(key + " " + string(text) + "\n")
	}
	return b.String()
}

// all is everything that is kept, as an attacker who stole the disk has it.
func (m *memoryRecords) all() string {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var b strings.Builder
	for key, value := range m.rows {
		b.WriteString(key)
		b.Write(value)
	}
	return b.String()
}

// clock is a time that a test sets.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// site is a door with an Access before services that count what reaches them.
type site struct {
	*Access
	records *memoryRecords
	clock   *clock
	log     *journal
	routes  *routes
	handler http.Handler
}

// newSite has a clock of its own.
func newSite(t *testing.T, edit ...func(*AccessConfig)) *site {
	t.Helper()
	c := newClock()
	s := newSiteIn(t, append(slices.Clone(edit), func(cfg *AccessConfig) { cfg.Now = c.Now })...)
	s.clock = c
	return s
}

// newSiteIn has the time of the bubble that it is made in.
func newSiteIn(t *testing.T, edit ...func(*AccessConfig)) *site {
	t.Helper()
	s := &site{records: newMemoryRecords(), log: new(journal), routes: new(routes)}
	cfg := AccessConfig{
		Records: s.records, Hosts: []string{"gate.example"},
		Addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8081},
		Log:  slog.New(slog.NewTextHandler(s.log, nil)),
		cost: cheap,
	}
	for _, e := range edit {
		e(&cfg)
	}
	var err error
	if s.Access, err = NewAccess(cfg); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(s.Service())
	mux.Handle(adminv1.NewResourceServiceHandler(s.routes, s.HandlerOptions()...))
	mux.Handle(adminv1.NewNodeServiceHandler(adminv1.UnimplementedNodeServiceHandler{}, s.HandlerOptions()...))
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { writeText(w, http.StatusOK, "ok") })
	s.handler = s.Guard(mux)
	return s
}

// routes stands for the resources.
type routes struct {
	adminv1.UnimplementedResourceServiceHandler

	mu    sync.Mutex
	calls []string
	err   error // of the next call of Apply

	begun chan struct{} // gets one for each Watch, when set
}

func (s *routes) reached(call string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, call)
}

func (s *routes) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.calls)
}

func (s *routes) Get(context.Context, *connect.Request[adminv1.GetRequest]) (*connect.Response[adminv1.GetResponse], error) {
	s.reached("Get")
	return connect.NewResponse(&adminv1.GetResponse{}), nil
}

func (s *routes) Apply(_ context.Context, r *connect.Request[adminv1.ApplyRequest]) (*connect.Response[adminv1.WriteResponse], error) {
	s.reached("Apply " + r.Msg.Text)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.err; err != nil {
		return nil, err
	}
	ref := &adminv1.Ref{Kind: "GRPCRoute", Namespace: "default", Name: "cart"}
	return connect.NewResponse(&adminv1.WriteResponse{Changes: []*adminv1.Change{{
		Action: "update", Ref: ref, Revision: "2@n",
		Before: &adminv1.Object{Ref: ref, Revision: "1@n", Manifest: `{"was":1}`},
		After:  &adminv1.Object{Ref: ref, Revision: "2@n", Manifest: r.Msg.Text},
	}}}), nil
}

func (s *routes) Split(_ context.Context, r *connect.Request[adminv1.SplitRequest]) (*connect.Response[adminv1.WriteResponse], error) {
	s.reached("Split " + r.Msg.Route.GetName())
	return connect.NewResponse(&adminv1.WriteResponse{}), nil
}

// Watch sends nothing until its context ends.
func (s *routes) Watch(ctx context.Context, _ *connect.Request[adminv1.WatchRequest], _ *connect.ServerStream[adminv1.WatchResponse]) error {
	s.reached("Watch")
	if s.begun != nil {
		s.begun <- struct{}{}
	}
	<-ctx.Done()
	return ctx.Err()
}

// client is a browser, a program or a neighbour on the socket, as an http.Client is
// to connect. Its fields are set before the first request.
type client struct {
	site    *site
	address string      // IP address
	host    string      // empty means 127.0.0.1:8081
	tls     bool        // the request came by TLS
	header  http.Header // of each request
	cookies map[string]string
	peer    *Peer
}

// program is a client that shows a token; empty for none.
func (s *site) program(token string) *client {
	c := &client{site: s, address: "192.0.2.1", header: http.Header{}, cookies: map[string]string{}}
	if token != "" {
		c.header.Set("Authorization", "Bearer "+token)
	}
	return c
}

// browser is a client that keeps cookies, and says where its requests come from.
func (s *site) browser() *client {
	c := s.program("")
	c.header.Set("Origin", "http://127.0.0.1:8081")
	c.header.Set("Sec-Fetch-Site", "same-origin")
	return c
}

// local is a client at the other end of the socket.
func (s *site) local() *client {
	c := s.program("")
	c.peer, c.host = &Peer{UID: 0, PID: 1}, "localhost"
	return c
}

func (c *client) Do(r *http.Request) (*http.Response, error) {
	in := r.Clone(r.Context())
	in.RequestURI = r.URL.RequestURI()
	in.RemoteAddr = net.JoinHostPort(c.address, "1234")
	in.Host = "127.0.0.1:8081"
	if c.host != "" {
		in.Host = c.host
	}
	for name, values := range c.header {
		in.Header[name] = values
	}
	for name, value := range c.cookies {
		in.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	if c.tls {
		in.TLS = &tls.ConnectionState{}
	}
	if in.Body == nil {
		in.Body = http.NoBody
	}
	if c.peer != nil {
		in = in.WithContext(context.WithValue(in.Context(), peerKey{}, *c.peer))
	}
	rec := httptest.NewRecorder()
	c.site.handler.ServeHTTP(rec, in)
	resp := rec.Result()
	for _, cookie := range resp.Cookies() {
		c.cookies[cookie.Name] = cookie.Value
		if cookie.MaxAge < 0 {
			delete(c.cookies, cookie.Name)
		}
	}
	return resp, nil
}

func (c *client) access() adminv1.AccessServiceClient {
	return adminv1.NewAccessServiceClient(c, "http://127.0.0.1:8081")
}

func (c *client) resources() adminv1.ResourceServiceClient {
	return adminv1.NewResourceServiceClient(c, "http://127.0.0.1:8081")
}

// signIn returns what it was refused for.
func (c *client) signIn(ctx context.Context, name, password string) error {
	_, err := c.access().SignIn(ctx, connect.NewRequest(&adminv1.SignInRequest{Name: name, Password: password}))
	return err
}

func (c *client) get(ctx context.Context) error {
	_, err := c.resources().Get(ctx, connect.NewRequest(&adminv1.GetRequest{}))
	return err
}

func (c *client) apply(ctx context.Context, text string) error {
	_, err := c.resources().Apply(ctx, connect.NewRequest(&adminv1.ApplyRequest{Text: text, Reason: "because"}))
	return err
}

// post sends a body as it is.
func (c *client) post(t *testing.T, path, contentType, body string) (*http.Response, string) {
	t.Helper()
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	return c.send(t, r)
}

func (c *client) send(t *testing.T, r *http.Request) (*http.Response, string) {
	t.Helper()
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(text)
}

const goodPassword = "correct horse battery"

// addAccount makes an account by the socket.
func (s *site) addAccount(t *testing.T, name string, role adminv1.Role) {
	t.Helper()
	_, err := s.local().access().CreateAccount(t.Context(), connect.NewRequest(&adminv1.CreateAccountRequest{
		Name: name, Password: goodPassword, Role: role,
	}))
	if err != nil {
		t.Fatal(err)
	}
}

// addToken makes a token by the socket and returns what it shows.
func (s *site) addToken(t *testing.T, role adminv1.Role) string {
	t.Helper()
	return s.local().addToken(t, "deploy", role, nil)
}

func (c *client) addToken(t *testing.T, name string, role adminv1.Role, expires *time.Time) string {
	t.Helper()
	request := &adminv1.CreateTokenRequest{Name: name, Role: role}
	if expires != nil {
		request.Expires = stamp(*expires)
	}
	answer, err := c.access().CreateToken(t.Context(), connect.NewRequest(request))
	if err != nil {
		t.Fatal(err)
	}
	return answer.Msg.Secret
}

// signedIn is a browser of an account that it makes.
func (s *site) signedIn(t *testing.T, name string, role adminv1.Role) *client {
	t.Helper()
	s.addAccount(t, name, role)
	b := s.browser()
	if err := b.signIn(t.Context(), name, goodPassword); err != nil {
		t.Fatal(err)
	}
	return b
}

// lines are those of the audit log, the latest first.
func (s *site) lines(t *testing.T) []*adminv1.AuditEntry {
	t.Helper()
	found, err := s.audit.list(auditQuery{limit: auditMaxLimit})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// wantRefused checks that something was refused, with a line in the audit log, and
// changed nothing.
func (s *site) wantRefused(t *testing.T, what string, do func() error, wantCode connect.Code, wantWhy string) {
	t.Helper()
	state, calls, lines := s.records.state(), s.routes.count(), len(s.lines(t))
	err := do()
	if connect.CodeOf(err) != wantCode || err == nil || !strings.Contains(err.Error(), wantWhy) {
		t.Errorf("%s: error %v, want %v: …%s…", what, err, wantCode, wantWhy)
	}
	if now := s.records.state(); now != state {
		t.Errorf("%s: changed the records from\n%sto\n%s", what, state, now)
	}
	if s.routes.count() != calls {
		t.Errorf("%s: reached the service", what)
	}
	after := s.lines(t)
	if len(after) != lines+1 {
		t.Errorf("%s: %d lines of audit were written, want 1", what, len(after)-lines)
		return
	}
	if line := after[0]; !line.Refused || !strings.Contains(line.Why, wantWhy) {
		t.Errorf("%s: audit line %v, want a refusal for %q", what, line, wantWhy)
	}
}

var (
	errDisk = errors.New("write records: no space left on device")
	errFull = fmt.Errorf("write records: %w", store.ErrFull)
)
