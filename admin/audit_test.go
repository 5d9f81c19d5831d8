package admin

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	adminv1 "sluice/admin/v1"
)

func TestAuditHasEveryChange(t *testing.T) {
	s := newSite(t)
	b := s.signedIn(t, "alice", adminv1.Role_ROLE_OPERATOR)
	b.address = "203.0.113.7"
	if err := b.apply(t.Context(), `{"is":2}`); err != nil {
		t.Fatal(err)
	}
	line := s.lines(t)[0]
	want := &adminv1.AuditEntry{
		Id: line.Id, Time: stamp(s.clock.Now()), Actor: "alice", Role: "operator", Address: "203.0.113.7", Via: "page",
		Action: "Apply", Reason: "because", Refs: []*adminv1.Ref{{Kind: "GRPCRoute", Namespace: "default", Name: "cart"}},
		Changes: []*adminv1.Change{{
			Action: "update", Ref: &adminv1.Ref{Kind: "GRPCRoute", Namespace: "default", Name: "cart"}, Revision: "2@n",
			Before: &adminv1.Object{Ref: &adminv1.Ref{Kind: "GRPCRoute", Namespace: "default", Name: "cart"}, Revision: "1@n", Manifest: `{"was":1}`},
			After:  &adminv1.Object{Ref: &adminv1.Ref{Kind: "GRPCRoute", Namespace: "default", Name: "cart"}, Revision: "2@n", Manifest: `{"is":2}`},
		}},
	}
	if !proto.Equal(line, want) {
		t.Errorf("got  %v\nwant %v", line, want)
	}

	local := s.local()
	local.header.Set("User-Agent", "sluice/1.2")
	if _, err := local.resources().Split(t.Context(), connect.NewRequest(&adminv1.SplitRequest{
		Route: &adminv1.Ref{Kind: "GRPCRoute", Name: "pay"}, Reason: "canary",
	})); err != nil {
		t.Fatal(err)
	}
	line = s.lines(t)[0]
	if line.Actor != "local root" || line.Address != "socket" || line.Via != "cli" || line.Refs[0].Name != "pay" || line.Reason != "canary" {
		t.Errorf("got %v", line)
	}

	before := len(s.lines(t))
	if err := b.get(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := b.resources().Apply(t.Context(), connect.NewRequest(&adminv1.ApplyRequest{Text: "x", DryRun: true})); err != nil {
		t.Fatal(err)
	}
	if got := len(s.lines(t)); got != before {
		t.Errorf("reading and trying wrote %d lines, want none", got-before)
	}
}

func TestAuditHasEveryRefusal(t *testing.T) {
	s := newSite(t)
	viewer := s.program(s.addToken(t, adminv1.Role_ROLE_VIEWER))
	operator := s.program(s.addToken(t, adminv1.Role_ROLE_OPERATOR))
	s.wantRefused(t, "role", func() error { return viewer.apply(t.Context(), "x") },
		connect.CodePermissionDenied, "token deploy has the role viewer; Apply needs operator")
	s.wantRefused(t, "nobody", func() error { return s.program("").apply(t.Context(), "x") },
		connect.CodeUnauthenticated, "sign in, or send a token")
	if line := s.lines(t)[1]; line.Action != "Apply" || line.Actor != "token deploy" || line.Role != "viewer" {
		t.Errorf("audit line %v", line)
	}

	s.routes.err = connect.NewError(connect.CodeAborted, errors.New("somebody has changed it meanwhile"))
	if err := operator.apply(t.Context(), "x"); connect.CodeOf(err) != connect.CodeAborted {
		t.Fatal(err)
	}
	if line := s.lines(t)[0]; !line.Refused || line.Why != "somebody has changed it meanwhile" || line.Reason != "because" {
		t.Errorf("audit line %v", line)
	}
	s.routes.err = errDisk // nobody foresaw it
	err := operator.apply(t.Context(), "x")
	if connect.CodeOf(err) != connect.CodeInternal || strings.Contains(err.Error(), "space") || !strings.Contains(s.log.String(), "no space left") {
		t.Errorf("error %v, log %s", err, s.log)
	}
	// An error keeps its details.
	detail, _ := connect.NewErrorDetail(&adminv1.Faults{Faults: []*adminv1.Fault{{Message: "bad"}}})
	faults := connect.NewError(connect.CodeInvalidArgument, errors.New("1 fault"))
	faults.AddDetail(detail)
	s.routes.err = fmt.Errorf("apply: %w", faults)
	var got *connect.Error
	if err := operator.apply(t.Context(), "x"); !errors.As(err, &got) || len(got.Details()) != 1 {
		t.Errorf("error %v has lost its details", err)
	}
}

// Accounts and tokens are changed with before and after, without secrets.
func TestAuditHasNoSecrets(t *testing.T) {
	s := newSite(t)
	link, err := s.SetUpLink()
	if err != nil {
		t.Fatal(err)
	}
	_, secret, _ := strings.Cut(link.URLs[0], "#")
	if _, err := s.program("").access().SetUp(t.Context(), connect.NewRequest(&adminv1.SetUpRequest{Secret: secret, Name: "alice", Password: goodPassword})); err != nil {
		t.Fatal(err)
	}
	alice := s.browser()
	if err := alice.signIn(t.Context(), "alice", goodPassword); err != nil {
		t.Fatal(err)
	}
	token := alice.addToken(t, "deploy", adminv1.Role_ROLE_OPERATOR, nil)
	s.addAccount(t, "bob", adminv1.Role_ROLE_VIEWER)
	if _, err := alice.access().UpdateAccount(t.Context(), connect.NewRequest(&adminv1.UpdateAccountRequest{
		Name: "bob", Role: adminv1.Role_ROLE_OPERATOR, Password: "another " + goodPassword,
	})); err != nil {
		t.Fatal(err)
	}
	line := s.lines(t)[0]
	if len(line.Changes) != 1 || line.Changes[0].Before.Manifest != `{"name":"bob","role":"viewer"}` ||
		line.Changes[0].After.Manifest != `{"name":"bob","role":"operator"}` || line.Refs[0].Kind != "Account" {
		t.Errorf("audit line %v", line)
	}
	wrong := s.program("sluice_canary_" + strings.Repeat("c", 43))
	wrong.get(t.Context())
	alice.signIn(t.Context(), "alice", "canary in a password")

	var everything strings.Builder
	for _, line := range s.lines(t) {
		everything.WriteString(line.String() + "\n")
	}
	everything.WriteString(s.records.all() + s.log.String())
	for name, value := range alice.cookies {
		t.Log(name)
		if strings.Contains(everything.String(), value) {
			t.Error("a session's secret is written down")
		}
	}
	for _, canary := range []string{secret, goodPassword, token[len(token)-43:], "ccccccc", "canary in a password"} {
		if strings.Contains(everything.String(), canary) {
			t.Errorf("%q is written down", canary)
		}
	}
	stored := ""
	for _, line := range s.lines(t) {
		stored += line.String()
	}
	if strings.Contains(stored, "argon2id") {
		t.Error("a hash is in the audit log")
	}
}

// Whoever is refused again and again fills no disk and pushes nothing out.
func TestAuditBoundsRefusals(t *testing.T) {
	s := newSite(t)
	if err := s.local().apply(t.Context(), "first"); err != nil {
		t.Fatal(err)
	}
	one := s.program("")
	for range 50 {
		one.get(t.Context())
	}
	if got := len(s.lines(t)); got != 1+refusalBurstOfOne {
		t.Errorf("%d lines after 50 refusals of one address, want %d", got-1, refusalBurstOfOne)
	}
	if err := s.tidy(); err != nil {
		t.Fatal(err)
	}
	if line := s.lines(t)[0]; !line.Refused || line.Why != "40 more refusals came too fast to have a line each" {
		t.Errorf("audit line %v", line)
	}
	before := len(s.lines(t))
	if err := s.tidy(); err != nil || len(s.lines(t)) != before {
		t.Errorf("with no more refusals: %v, %d lines more", err, len(s.lines(t))-before)
	}
	const addresses = 3000
	for i := range addresses {
		c := s.program("")
		c.address = fmt.Sprintf("10.0.%d.%d", i/256, i%256)
		c.get(t.Context())
	}
	if got := len(s.lines(t)); got > 2+refusalBurst+1 {
		t.Errorf("%d lines after refusals of %d addresses, limit %d", got, addresses, refusalBurst+3)
	}
	if len(s.audit.pace.of) > refusalsOfOneKnown {
		t.Errorf("%d addresses are known, limit %d", len(s.audit.pace.of), refusalsOfOneKnown)
	}
	if err := s.tidy(); err != nil {
		t.Fatal(err)
	}
	if line := s.lines(t)[0]; !strings.HasSuffix(line.Why, "more refusals came too fast to have a line each") {
		t.Errorf("audit line %v", line)
	}
	// Later there is room for lines again: a tenth of a line a second.
	s.clock.advance(time.Hour)
	before = len(s.lines(t))
	one.get(t.Context())
	if got := len(s.lines(t)); got != before+1 {
		t.Errorf("%d lines an hour later, want 1", got-before)
	}
}

func TestAuditForgetsTheOldest(t *testing.T) {
	s := newSite(t)
	s.audit.most = map[string]int{doneVolume: 5, visitsVolume: 2, refusedVolume: 3}
	write := func(action string, refused bool) {
		s.clock.advance(time.Second)
		s.audit.pace = newAuditPace(s.now)
		s.audit.write(&adminv1.AuditEntry{Action: action, Actor: "x", Refused: refused})
	}
	for i := range 4 {
		write(fmt.Sprint("done ", i), false)
	}
	for i := range 50 {
		write(fmt.Sprint("refused ", i), true)
		write("SignIn", false)
	}
	got := auditActions(s.lines(t))
	if want := "SignIn,refused 49,SignIn,refused 48,refused 47,done 3,done 2,done 1,done 0"; got != want {
		t.Errorf("the book has %s, want %s", got, want)
	}
	for i := range 4 {
		write(fmt.Sprint("more ", i), false)
	}
	if got := auditActions(s.lines(t)); !strings.HasPrefix(got, "more 3,more 2,more 1,more 0,SignIn,") || !strings.HasSuffix(got, ",done 3") {
		t.Errorf("the book has %s", got)
	}
	s.clock.advance(auditAge - 3*time.Second)
	if err := s.tidy(); err != nil {
		t.Fatal(err)
	}
	if got := auditActions(s.lines(t)); got != "more 3,more 2,more 1,more 0" {
		t.Errorf("after 90 days the book has %s", got)
	}
	s.clock.advance(time.Minute)
	if err := s.tidy(); err != nil || len(s.lines(t)) != 0 {
		t.Errorf("later the book has %s, %v", auditActions(s.lines(t)), err)
	}
	var meta *auditMeta
	s.records.View(func(tx RecordsTx) (err error) { meta, err = getAuditMeta(tx); return err })
	for volume, v := range meta.Volumes {
		if v.Lines != 0 || v.Bytes != 0 {
			t.Errorf("volume %s is empty and counts %+v", volume, v)
		}
	}
}

func auditActions(lines []*adminv1.AuditEntry) string {
	var names []string
	for _, l := range lines {
		names = append(names, l.Action)
	}
	return strings.Join(names, ",")
}

func TestAuditBoundsBytes(t *testing.T) {
	s := newSite(t)
	long := strings.Repeat("x", 10<<10)
	s.audit.mostBytes = 1 << 20
	for range 200 {
		s.audit.write(&adminv1.AuditEntry{Actor: "x", Action: "Apply", Changes: []*adminv1.Change{{After: &adminv1.Object{Manifest: long}}}})
	}
	if size := len(s.records.all()); size > 1<<20+10_000 || size < 1<<20-11<<10 {
		t.Errorf("the book is %d bytes long, limit %d", size, 1<<20)
	}
}

func TestAuditIsReadByPages(t *testing.T) {
	s := newSite(t)
	admin := s.local()
	for i := range 30 {
		s.audit.pace = newAuditPace(s.now)
		s.audit.write(&adminv1.AuditEntry{
			Actor: []string{"alice", "bob"}[i%2], Action: fmt.Sprint(i), Refused: i%3 == 0,
			Refs: []*adminv1.Ref{{Kind: "GRPCRoute", Namespace: []string{"", "shop"}[i%2], Name: "cart"}},
		})
	}
	read := func(r *adminv1.AuditRequest) []*adminv1.AuditEntry {
		answer, err := admin.access().Audit(t.Context(), connect.NewRequest(r))
		if err != nil {
			t.Fatal(err)
		}
		return answer.Msg.Entries
	}
	var all []*adminv1.AuditEntry
	for before := uint64(0); ; before = all[len(all)-1].Id {
		page := read(&adminv1.AuditRequest{Limit: 7, Before: before})
		if len(page) == 0 {
			break
		}
		all = append(all, page...)
	}
	for i, entry := range all {
		if want := fmt.Sprint(29 - i); entry.Action != want {
			t.Fatalf("line %d is %s, want %s", i, entry.Action, want)
		}
	}
	for _, tc := range []struct {
		name string
		r    *adminv1.AuditRequest
		want int
	}{
		{"all", &adminv1.AuditRequest{}, 30},
		{"more than there may be", &adminv1.AuditRequest{Limit: 1 << 31}, 30},
		{"of one", &adminv1.AuditRequest{Actor: "alice"}, 15},
		{"refusals", &adminv1.AuditRequest{Refused: true}, 10},
		{"refusals of one", &adminv1.AuditRequest{Refused: true, Actor: "bob"}, 5},
		{"of an object", &adminv1.AuditRequest{Ref: &adminv1.Ref{Kind: "GRPCRoute", Namespace: "shop", Name: "cart"}}, 15},
		{"of an object in default", &adminv1.AuditRequest{Ref: &adminv1.Ref{Kind: "GRPCRoute", Namespace: "default", Name: "cart"}}, 15},
		{"of another object", &adminv1.AuditRequest{Ref: &adminv1.Ref{Kind: "Backend", Name: "cart"}}, 0},
		{"before the first", &adminv1.AuditRequest{Before: 1}, 0},
	} {
		if got := read(tc.r); len(got) != tc.want {
			t.Errorf("%s: %d lines, want %d", tc.name, len(got), tc.want)
		}
	}
}

// A line has no more than it may, whatever somebody sends.
func TestAuditLineFits(t *testing.T) {
	long := strings.Repeat("ä", 5000)
	entry := &adminv1.AuditEntry{Reason: long, Why: "red \x1b[31m\r\n\u202e\x80", Action: "GET /" + long}
	for i := range 10_000 {
		ref := &adminv1.Ref{Kind: "Backend", Name: fmt.Sprint("b", i)}
		entry.Refs = append(entry.Refs, ref)
		entry.Changes = append(entry.Changes, &adminv1.Change{Ref: ref, Revision: "2", Before: &adminv1.Object{Revision: "1", Manifest: long}, After: &adminv1.Object{Manifest: long}})
	}
	got := fitAudit(entry)
	if size := proto.Size(got); size > 2*auditLineBytes {
		t.Errorf("the line is %d bytes long", size)
	}
	if len(got.Refs) != auditListed+1 || got.Refs[auditListed].Name != "and 9900 more" || len(got.Changes) != auditListed {
		t.Errorf("%d refs, the last %v, and %d changes", len(got.Refs), got.Refs[len(got.Refs)-1], len(got.Changes))
	}
	if c := got.Changes[0]; c.Revision != "2" || c.Before.Revision != "1" || c.Before.Manifest != "" {
		t.Errorf("change %v, want its revisions alone", c)
	}
	if got.Why != "red  [31m   \uFFFD" {
		t.Errorf("why %q", got.Why)
	}
	if !strings.HasSuffix(got.Reason, "ä…") || len(got.Reason) > auditTextBytes+3 {
		t.Errorf("reason of %d bytes that ends in %q", len(got.Reason), got.Reason[len(got.Reason)-6:])
	}
	if entry.Changes[0].Before.Manifest == "" {
		t.Error("what the client is told was cut, too")
	}
}

// The book that cannot be written is in the log.
func TestAuditLogsWhatItLoses(t *testing.T) {
	s := newSite(t)
	s.records.full = errDisk
	if err := s.local().apply(t.Context(), "x"); err != nil {
		t.Errorf("the change itself: %v", err)
	}
	if log := s.log.String(); !strings.Contains(log, "audit line lost") || !strings.Contains(log, "no space left") {
		t.Errorf("log: %s", log)
	}
}
