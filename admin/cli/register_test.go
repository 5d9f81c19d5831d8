package cli

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "sluice/admin/v1"
)

// notes are what a command says while it runs; each write wakes up who waits for one.
type notes struct {
	mu    sync.Mutex
	text  bytes.Buffer
	wrote chan struct{}
}

func newNotes() *notes { return &notes{wrote: make(chan struct{}, 1)} }

func (n *notes) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	select {
	case n.wrote <- struct{}{}:
	default:
	}
	return n.text.Write(p)
}

func (n *notes) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.text.String()
}

// await waits until something has been said.
func (n *notes) await(t *testing.T, what string) {
	t.Helper()
	for !strings.Contains(n.String(), what) {
		select {
		case <-n.wrote:
		case <-time.After(20 * time.Second):
			t.Fatalf("nothing was said of %q:\n%s", what, n)
		}
	}
}

// running is a command that stays until it is told to end.
type running struct {
	t           *testing.T
	out, notes  *notes
	end         context.CancelFunc
	ended       chan error
	description string
}

func (u *user) start(args ...string) *running {
	u.t.Helper()
	ctx, end := context.WithCancel(u.t.Context())
	r := &running{t: u.t, out: newNotes(), notes: newNotes(), end: end, ended: make(chan error, 1), description: strings.Join(args, " ")}
	go func() { r.ended <- u.execute(ctx, r.out, r.notes, args...) }()
	u.t.Cleanup(end)
	return r
}

// stop ends it as a signal does.
func (r *running) stop() error {
	r.t.Helper()
	r.end()
	return r.wait()
}

func (r *running) wait() error {
	r.t.Helper()
	select {
	case err := <-r.ended:
		return err
	case <-time.After(20 * time.Second):
		r.t.Fatalf("%s has not ended:\n%s%s", r.description, r.out, r.notes)
		return nil
	}
}

// holds is a Keep that sends one response and stays.
func (f *fakeServer) holds(ctx context.Context, r *adminv1.KeepRequest, stream *connect.ServerStream[adminv1.KeepResponse]) error {
	registration, err := f.registration(r.GetRegistration())
	if err != nil {
		return err
	}
	registration.Kept, registration.Expires = true, nil
	if err := stream.Send(&adminv1.KeepResponse{Registration: registration}); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

func TestRegisterKeepsUntilItIsTold(t *testing.T) {
	u := newUser(t)
	r := u.start("backend", "register", "cart-v1", "10.0.0.13:50051", "--keep")
	r.out.await(t, "kept by this command")
	if err := r.stop(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	if got := r.out.String(); got != "10.0.0.13:50051 registered at Backend default/cart-v1, weight 1, kept by this command\n" {
		t.Errorf("it said %q", got)
	}
	if got := u.neutral(r.notes.String()); got != "10.0.0.13:50051 deregistered at DATA/admin.sock\n" {
		t.Errorf("its notes are %q", got)
	}
	asked := strings.Split(strings.TrimSpace(u.fake.asked()), "\n")
	if len(asked) != 2 || !strings.HasPrefix(asked[0], "KeepRequest ") || !strings.HasPrefix(asked[1], "DeregisterRequest ") {
		t.Errorf("the server was asked for %q", asked)
	}
}

// What a server warns of is told, also beside a command and when it has come back.
func TestRegisterKeepTellsOfWarnings(t *testing.T) {
	for _, beside := range []bool{false, true} {
		u := newUser(t)
		calls := 0
		u.fake.keep = func(ctx context.Context, r *adminv1.KeepRequest, stream *connect.ServerStream[adminv1.KeepResponse]) error {
			registration, _ := u.fake.registration(r.GetRegistration())
			calls++
			if err := stream.Send(&adminv1.KeepResponse{Registration: registration, Warnings: []string{"it is drained, " + strings.Repeat("once more ", calls-1)}}); err != nil {
				return err
			}
			if calls == 1 {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}
		args := []string{"backend", "register", "cart-v1", "10.0.0.13:50051", "--keep"}
		if beside {
			args = append(args, "--", "sleep", "60")
		}
		r := u.start(args...)
		r.notes.await(t, "warning: it is drained, \n")
		r.notes.await(t, "warning: it is drained, once more")
		r.stop()
	}
}

// What ends a stream and may pass is no end of the registration: a server that starts
// again, one that is cut off, one that is full for a moment.
func TestRegisterKeepsThroughTheEndOfAServer(t *testing.T) {
	for _, test := range []struct {
		name, says string
		end        func(ctx context.Context, stream *connect.ServerStream[adminv1.KeepResponse]) error
	}{
		{"closing", "the admin port is closing", func(context.Context, *connect.ServerStream[adminv1.KeepResponse]) error {
			return connect.NewError(connect.CodeUnavailable, errors.New("the admin port is closing"))
		}},
		{"killed", "the connection broke: ", func(context.Context, *connect.ServerStream[adminv1.KeepResponse]) error {
			panic(http.ErrAbortHandler)
		}},
		{"ended", "the server has ended the stream", func(context.Context, *connect.ServerStream[adminv1.KeepResponse]) error { return nil }},
	} {
		t.Run(test.name, func(t *testing.T) {
			u := newUser(t)
			calls := 0
			u.fake.keep = func(ctx context.Context, r *adminv1.KeepRequest, stream *connect.ServerStream[adminv1.KeepResponse]) error {
				if calls++; calls > 1 {
					return u.fake.holds(ctx, r, stream)
				}
				registration, _ := u.fake.registration(r.GetRegistration())
				if err := stream.Send(&adminv1.KeepResponse{Registration: registration}); err != nil {
					return err
				}
				return test.end(ctx, stream)
			}
			r := u.start("backend", "register", "cart-v1", "10.0.0.13:50051", "--keep")
			r.notes.await(t, "registered again at Backend default/cart-v1")
			if err := r.stop(); err != nil {
				t.Errorf("it ended with %v", err)
			}
			if got := u.neutral(r.notes.String()); !strings.HasPrefix(got, "DATA/admin.sock: "+test.says) || !strings.Contains(got, "; trying DATA/admin.sock in ") {
				t.Errorf("its notes are %q", got)
			}
		})
	}
}

func TestRegisterKeepEndsWhenItIsRefused(t *testing.T) {
	for _, test := range []struct {
		name  string
		held  bool
		code  connect.Code
		says  string
		tries int
	}{
		{"by an operator", true, connect.CodeAborted, "the registration was ended by somebody else", 1},
		{"its token was revoked", true, connect.CodeUnauthenticated, "the token is unknown", 1},
		{"no backend", false, connect.CodeNotFound, "there is no Backend", 1},
		{"at first no server answers", false, connect.CodeUnavailable, "not yet", 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			u := newUser(t)
			tries := 0
			u.fake.keep = func(_ context.Context, r *adminv1.KeepRequest, stream *connect.ServerStream[adminv1.KeepResponse]) error {
				tries++
				if test.held {
					registration, _ := u.fake.registration(r.GetRegistration())
					if err := stream.Send(&adminv1.KeepResponse{Registration: registration}); err != nil {
						return err
					}
				}
				return connect.NewError(test.code, errors.New(test.says))
			}
			r := u.start("backend", "register", "cart-v1", "10.0.0.13:50051", "--keep")
			if err := r.wait(); err == nil || !strings.Contains(err.Error(), test.says) || errors.As(err, new(UsageError)) {
				t.Errorf("it ended with %v, want %q", err, test.says)
			}
			if tries != test.tries || strings.Contains(u.fake.asked(), "DeregisterRequest") {
				t.Errorf("%d tries, and the server was asked for\n%s", tries, u.fake.asked())
			}
		})
	}
}

func TestRegisterKeepGivesUp(t *testing.T) {
	u := newUser(t)
	calls := 0
	u.fake.keep = func(_ context.Context, r *adminv1.KeepRequest, stream *connect.ServerStream[adminv1.KeepResponse]) error {
		if calls++; calls == 1 {
			registration, _ := u.fake.registration(r.GetRegistration())
			if err := stream.Send(&adminv1.KeepResponse{Registration: registration}); err != nil {
				return err
			}
		}
		return connect.NewError(connect.CodeUnavailable, errors.New("full"))
	}
	r := u.start("backend", "register", "cart-v1", "10.0.0.13:50051", "--keep", "--retry-for", "100ms")
	if err := r.wait(); err == nil || !strings.HasPrefix(err.Error(), "no server has answered for 100ms: ") {
		t.Errorf("it ended with %v", err)
	}
}

// A server that says nothing is taken for dead: its host may have lost its power.
func TestRegisterKeepLeavesASilentServer(t *testing.T) {
	u := newUser(t)
	left := make(chan struct{})
	calls := 0
	u.fake.keep = func(ctx context.Context, r *adminv1.KeepRequest, stream *connect.ServerStream[adminv1.KeepResponse]) error {
		if calls++; calls > 1 {
			return u.fake.holds(ctx, r, stream)
		}
		registration, _ := u.fake.registration(r.GetRegistration())
		registration.Lease = durationpb.New(time.Millisecond - 3*quietSlack/2) // so that it is missed at once
		if err := stream.Send(&adminv1.KeepResponse{Registration: registration}); err != nil {
			return err
		}
		<-ctx.Done()
		close(left)
		return ctx.Err()
	}
	r := u.start("backend", "register", "cart-v1", "10.0.0.13:50051", "--keep")
	r.notes.await(t, "the server has been silent for too long")
	<-left
	r.notes.await(t, "registered again")
	if err := r.stop(); err != nil {
		t.Error(err)
	}
}

func TestRegisterGoesToAServerThatAnswers(t *testing.T) {
	u := newUser(t)
	servers := "unix:" + u.dir + "/none.sock,unix:" + u.dir + "/" + socketName
	got := u.run("backend", "register", "cart-v1", "10.0.0.13:50051", "--server", servers)
	if got.code != 0 || !strings.Contains(got.stderr, "; trying "+u.dir+"/"+socketName) {
		t.Errorf("once: %+v", got)
	}
	r := u.start("backend", "register", "cart-v1", "10.0.0.13:50051", "--keep", "--server", servers)
	r.out.await(t, "kept by this command")
	if err := r.stop(); err != nil {
		t.Errorf("keep: %v", err)
	}
	u.env["SLUICE_SERVER"] = servers
	if got := u.run("backend", "register", "cart-v1", "10.0.0.13:50051"); got.code != 0 {
		t.Errorf("by the environment: %+v", got)
	}
	none := "unix:" + u.dir + "/none.sock,unix:" + u.dir + "/nor.sock"
	if got := u.run("backend", "register", "cart-v1", "10.0.0.13:50051", "--keep", "--server", none); got.code != 1 ||
		!strings.HasSuffix(got.stderr, "sluice: "+u.dir+"/nor.sock: no server runs here; start one with sluice serve, or name another with --data-dir, --server or --context\n") {
		t.Errorf("nowhere: %+v", got)
	}
}

func TestRegisterHasTheStatusOfItsCommand(t *testing.T) {
	u := newUser(t)
	u.fake.keep = func(ctx context.Context, r *adminv1.KeepRequest, stream *connect.ServerStream[adminv1.KeepResponse]) error {
		u.write("registered", "")
		return u.fake.holds(ctx, r, stream)
	}
	for script, want := range map[string]error{"exit 7": ExitError{7}, "exit 0": nil, "kill -9 $$": ExitError{137}} {
		os.Remove("registered")
		r := u.start("backend", "register", "cart-v1", "10.0.0.13:50051", "--keep", "--", "sh", "-c",
			"while ! test -e registered; do sleep 0.01; done; echo served; "+script)
		if err := r.wait(); !errors.Is(err, want) {
			t.Errorf("%s: it ended with %v", script, err)
		}
		if r.out.String() != "served\n" || !strings.Contains(u.fake.asked(), "KeepRequest") {
			t.Errorf("%s: it said %q, and asked for %q", script, r.out, u.fake.asked())
		}
		u.fake.forget()
	}
}

// It is told to end when no RPC comes any more.
func TestRegisterEndsBeforeItsCommand(t *testing.T) {
	u := newUser(t)
	r := u.start("backend", "register", "cart-v1", "10.0.0.13:50051", "--keep", "--", "sh", "-c",
		"trap 'echo told > told; exit 3' TERM; echo up; while :; do sleep 0.05; done")
	r.notes.await(t, "10.0.0.13:50051 registered at Backend default/cart-v1")
	r.out.await(t, "up")
	u.fake.deregistered = func() {
		time.Sleep(200 * time.Millisecond) // allow:sleep, for a command that was told too early to say so
		if _, err := os.Stat("told"); err == nil {
			t.Error("the command was told to end first")
		}
	}
	var exit ExitError
	if err := r.stop(); !errors.As(err, &exit) || exit.Code != 3 {
		t.Errorf("it ended with %v", err)
	}
	if _, err := os.Stat("told"); err != nil {
		t.Error("the command was not told to end")
	}
	if !strings.Contains(u.fake.asked(), "DeregisterRequest") {
		t.Error("the registration was not taken back")
	}
}

func TestRegisterEndsItsCommandWhenItIsRefused(t *testing.T) {
	u := newUser(t)
	r := u.start("backend", "register", "cart-v1", "0.0.0.0:50051", "--keep", "--", "sleep", "60")
	var exit ExitError
	if err := r.wait(); !errors.As(err, &exit) || exit.Code != 1 {
		t.Errorf("it ended with %v", err)
	}
	r.notes.await(t, "stands for every address")
	if got := u.run("backend", "register", "cart-v1", "10.0.0.13:50051", "--keep", "--", "./nothing"); got.code != 1 || !strings.Contains(got.stderr, `run "./nothing": `) {
		t.Errorf("what cannot be run: %+v", got)
	}
}

func TestDrainWaitsUntilNothingIsLeft(t *testing.T) {
	u := newUser(t)
	e := u.fake.endpoints[0].GetEndpoints()[1]
	u.fake.drained = func() { e.Active-- }
	got := u.run("backend", "drain", "cart-v1", "10.0.0.12:50051", "--grace", "30s", "--wait")
	want := "2 RPCs open on 10.0.0.12:50051; 30s of the grace left\n1 RPC open on 10.0.0.12:50051; 30s of the grace left\nBackend default/cart-v1: no RPC is left\n"
	if got.code != 0 || strings.ReplaceAll(got.stderr, "29s", "30s") != want {
		t.Errorf("got %+v, want %q", got, want)
	}

	// The same address in another spelling, and one that nobody has: what is not in the
	// list is not said to be empty.
	e.Active = 3
	got = u.run("backend", "drain", "cart-v1", "[::ffff:10.0.0.12]:50051", "--wait")
	want = "2 RPCs open on 10.0.0.12:50051\n1 RPC open on 10.0.0.12:50051\nBackend default/cart-v1: no RPC is left\n"
	if got.code != 0 || got.stderr != want {
		t.Errorf("another spelling: %+v, want %q", got, want)
	}
	e.Active = 0
	u.fake.drained = nil
	got = u.run("backend", "drain", "cart-v1", "10.0.0.99:50051", "10.0.0.12:50051", "--wait")
	want = "Backend default/cart-v1: no RPC is left that this server knows of; no endpoint has the address 10.0.0.99:50051 now\n"
	if got.code != 0 || got.stderr != want {
		t.Errorf("nobody's address: %+v, want %q", got, want)
	}

	e.Active = 3
	u.fake.drained = func() { e.Drain = nil }
	got = u.run("backend", "drain", "cart-v1", "10.0.0.12:50051", "--wait")
	if got.code != 1 || !strings.HasSuffix(got.stderr, "sluice: 10.0.0.12:50051 was put back into the choice meanwhile\n") {
		t.Errorf("put back: %+v", got)
	}
	e.Drain, u.fake.drained = &adminv1.Drain{}, nil
	r := u.start("backend", "drain", "cart-v1", "--wait")
	r.notes.await(t, "3 RPCs open on 10.0.0.12:50051\n")
	if err := r.stop(); !errors.Is(err, errDrainLeft) {
		t.Errorf("interrupted: %v", err)
	}
}
