package cli

import (
	"context"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "sluice/admin/v1"
)

func TestMembersOfNoCluster(t *testing.T) {
	u := newUser(t)
	u.fake.alone = true
	got := u.run("members")
	want := "NODE      HOST    VERSION  ADDRESS  STATE  SINCE    OBJECTS  CLOCK  PROBLEM\n" +
		"k3f9x2ab  (this)  1.2.3    -        alive  21h ago  -        -      -\n"
	if got.stdout != want || got.code != 0 || !strings.Contains(got.stderr, "without a cluster") {
		t.Errorf("got exit %d\n%s%s", got.code, got.stdout, got.stderr)
	}
	if got := u.run("conflicts"); got.stdout != "" || got.stderr != "there are none\n" || got.code != 0 {
		t.Errorf("conflicts: %+v", got)
	}
	if got := u.run("status"); !strings.Contains(got.stdout, "Cluster      none\n") || strings.Contains(got.stdout, "Conflicts") {
		t.Errorf("status:\n%s", got.stdout)
	}
}

// A key is made without a server, is never the same, and is one that the other commands
// read.
func TestKeyringGenerateMakesKeys(t *testing.T) {
	u := newUser(t)
	first := u.run("cluster", "keyring", "generate", "--server", "unix:/nowhere")
	second := u.run("cluster", "keyring", "generate", "--server", "unix:/nowhere")
	if first.code != 0 || !strings.HasPrefix(first.stderr, "the fingerprint of the key is ") || strings.Count(first.stdout, "\n") != 1 || first.stdout == second.stdout {
		t.Fatalf("got %+v and %+v", first, second)
	}
	key, err := readKey("-", strings.NewReader("# made today\n\n"+first.stdout))
	if err != nil || key != strings.TrimSpace(first.stdout) {
		t.Errorf("read %q, %v", key, err)
	}
	u.write("first.key", first.stdout)
	u.run("cluster", "keyring", "use", "first.key")
	print := strings.TrimSpace(strings.TrimPrefix(first.stderr, "the fingerprint of the key is "))
	if asked := u.fake.asked(); asked != "UseKeyRequest {\"key\":\""+print+"\"}\n" {
		t.Errorf("asked %q, want the fingerprint %s", asked, print)
	}
}

// What somebody has typed is neither sent nor repeated.
func TestKeyringTakesNoKeyFromTheCommandLine(t *testing.T) {
	u := newUser(t)
	key := strings.TrimSpace(u.run("cluster", "keyring", "generate").stdout)
	for _, verb := range []string{"add", "use", "remove"} {
		got := u.run("cluster", "keyring", verb, key)
		if got.code != 2 || strings.Contains(got.stderr, key) || u.fake.asked() != "" {
			t.Errorf("%s: exit %d, %q, asked %q", verb, got.code, got.stderr, u.fake.asked())
		}
	}
}

func TestWaysNamesWhatWorks(t *testing.T) {
	const none, yes, no = 0, 1, 2
	for _, test := range []struct {
		out, in int32
		want    string
	}{
		{none, none, ""},
		{yes, yes, "both"},
		{yes, no, "out"},
		{yes, none, "out?"},
		{no, yes, "in"},
		{none, yes, "in?"},
		{no, no, "none"},
		{no, none, "none"},
	} {
		if got := ways(adminv1.Member_Reach(test.out), adminv1.Member_Reach(test.in)); got != test.want {
			t.Errorf("out %d, in %d: %q, want %q", test.out, test.in, got, test.want)
		}
	}
}

// What a file of another gateway declares is as read-only as what one of this one does.
func TestOwnersOfPeers(t *testing.T) {
	u := newUser(t)
	u.env["EDITOR"] = "false"
	of := u.fake.objects[2] // the route
	of.Owner, of.Lost = &adminv1.Owner{Kind: adminv1.Owner_KIND_PEER, File: "routes.yaml:12"}, 2
	if got := u.run("get", "routes"); !strings.Contains(got.stdout, "  peer routes.yaml:12  ") {
		t.Errorf("get:\n%s", got.stdout)
	}
	got := u.run("describe", "route", "cart")
	for _, want := range []string{
		"peer routes.yaml:12; read-only here until sluice adopt route cart",
		"another gateway changed it, too, and 2 versions are lost; see sluice conflicts show route cart",
	} {
		if !strings.Contains(got.stdout, want) {
			t.Errorf("describe says nothing of %q:\n%s", want, got.stdout)
		}
	}
	if got := u.run("edit", "route", "cart"); got.code != 1 || !strings.Contains(got.stderr, "declared by peer routes.yaml:12 and read-only here") {
		t.Errorf("edit: %+v", got)
	}
	of.Owner.File = ""
	if got := u.run("describe", "route", "cart"); !strings.Contains(got.stdout, "Owner      api\n") {
		t.Errorf("describe:\n%s", got.stdout)
	}
	if got := u.run("edit", "route", "cart"); strings.Contains(got.stderr, "read-only") {
		t.Errorf("edit: %+v", got)
	}
}

// The commands that do not ask in one line, as the others do, pass --wait on, too.
func TestWaitIsPassedOn(t *testing.T) {
	u := newUser(t)
	u.write("a.backup", backupText)
	u.editor(`sed -i s/shop.example.com/new.example.com/ "$1"`)
	for _, args := range [][]string{
		{"restore", "a.backup"},
		{"edit", "route", "cart", "--take-over"},
		{"release", "route", "cart"},
		{"schema", "delete", "shop"},
	} {
		u.fake.forget()
		got := u.run(append(args, "--wait", "all")...)
		if asked := u.fake.asked(); !strings.Contains(asked, `"wait":"all"`) {
			t.Errorf("%v: exit %d, %q, asked %q", args, got.code, got.stderr, asked)
		}
	}
}

// A registration that not all have heard of is kept: it travels on.
func TestRegisterKeepSaysWhoHasNotConfirmed(t *testing.T) {
	u := newUser(t)
	u.fake.keep = func(ctx context.Context, r *adminv1.KeepRequest, stream *connect.ServerStream[adminv1.KeepResponse]) error {
		registration, err := u.fake.registration(r.GetRegistration())
		if err != nil {
			return err
		}
		registration.Kept = true
		peers := &adminv1.Confirmation{Unconfirmed: []*adminv1.Unconfirmed{{Node: "zz9h2k3m", Host: "gw-3", Why: "no answer within 10s"}}}
		if err := stream.Send(&adminv1.KeepResponse{Registration: registration, Peers: peers}); err != nil {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	}
	r := u.start("backend", "register", "cart-v1", "10.0.0.5:50051", "--keep", "--wait", "all")
	r.out.await(t, "kept by this command")
	r.notes.await(t, "gw-3 (zz9h2k3m) has not confirmed: no answer within 10s\nwarning: not confirmed by 1 of 1 peer")
	if err := r.stop(); err != nil {
		t.Error(err)
	}
}

// What was lost in a conflict is in the history, also when the conflict is settled.
func TestHistoryShowsWhatWasLost(t *testing.T) {
	u := newUser(t)
	of := worldConflicts()[1]
	u.fake.changes = []*adminv1.Change{{
		Sequence: 43, Time: of.GetHolds().GetObject().GetLastChange().GetTime(), Actor: "alice", Via: "cli", Action: "conflict",
		Ref: of.GetHolds().GetObject().GetRef(), Revision: of.GetHolds().GetObject().GetRevision(),
		Before: of.GetLost()[0].GetObject(), After: of.GetHolds().GetObject(), Lost: of.GetLost()[0].GetObject(),
	}}
	got := u.run("history", "route", "cart", "--diff")
	for _, want := range []string{
		"43 2026-05-04 15:25:00 GRPCRoute default/cart conflict 5m ago by alice via cli\n",
		"lost by that: 1777908240000.0@zz9h2k3m, changed 6m ago by bob via cli: night shift\n",
		"+++ GRPCRoute default/cart (lost, 1777908240000.0@zz9h2k3m)\n",
	} {
		if !strings.Contains(got.stdout, want) {
			t.Errorf("no %q in\n%s", want, got.stdout)
		}
	}
}

func TestClusterThatWasLeft(t *testing.T) {
	left := &adminv1.Member{Id: "k3f9x2ab", Self: true, State: adminv1.Member_STATE_LEFT}
	if got := new(call).memberProblem(left); got != "alone until sluice cluster join" {
		t.Errorf("problem %q", got)
	}
	if got := clusterLine(&adminv1.StatusResponse{Cluster: &adminv1.ClusterStatus{Left: true}}); got != "left; the server is alone until sluice cluster join" {
		t.Errorf("status %q", got)
	}
}

// Of who is not heard of, or has changed a moment ago, nobody knows that it has the same.
func TestMembersSayTheSameOnlyOfTheSame(t *testing.T) {
	c := &call{program: &program{}}
	c.Now = func() time.Time { return now }
	heard := timestamppb.New(now.Add(-9 * time.Second))
	for name, tc := range map[string]struct {
		m             *adminv1.Member
		word, problem string
	}{
		"in touch": {&adminv1.Member{Digest: "aa"}, "the same", ""},
		"changing": {&adminv1.Member{Digest: "bb"}, "changing", ""},
		"silent":   {&adminv1.Member{Digest: "aa", Silent: true, Heard: heard}, "", "not heard of for 9s"},
		"unheard":  {&adminv1.Member{Silent: true}, "", "not heard of yet"},
	} {
		tc.m.State = adminv1.Member_STATE_ALIVE
		if word, problem := c.objectsWord(tc.m, "aa"), c.memberProblem(tc.m); word != tc.word || problem != tc.problem {
			t.Errorf("%s: %q and %q, want %q and %q", name, word, problem, tc.word, tc.problem)
		}
	}
}
