package admin

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	adminv1 "sluice/admin/v1"
)

// watch opens a stream and returns what it ends with.
func (c *client) watch(t *testing.T) <-chan error {
	t.Helper()
	c.site.routes.begun = make(chan struct{}, 10)
	ended := make(chan error, 1)
	go func() {
		stream, err := c.resources().Watch(t.Context(), connect.NewRequest(&adminv1.WatchRequest{}))
		if err == nil {
			stream.Receive()
			err = stream.Err()
		}
		ended <- err
	}()
	<-c.site.routes.begun
	return ended
}

// Three ways in which a right ends, of whoever the test has made.

func revokeToken(ctx context.Context, s *site) error {
	answer, err := s.local().access().ListTokens(ctx, connect.NewRequest(&adminv1.ListTokensRequest{}))
	if err != nil {
		return err
	}
	return s.local().revoke(ctx, answer.Msg.Tokens[0].Id)
}

func deleteAlice(ctx context.Context, s *site) error {
	_, err := s.local().access().DeleteAccount(ctx, connect.NewRequest(&adminv1.DeleteAccountRequest{Name: "alice"}))
	return err
}

func lowerAlice(ctx context.Context, s *site) error {
	_, err := s.local().access().UpdateAccount(ctx, connect.NewRequest(&adminv1.UpdateAccountRequest{Name: "alice", Role: adminv1.Role_ROLE_VIEWER}))
	return err
}

// Who is not allowed to call any more is not allowed to listen on.
func TestStreamEndsWithItsCredentials(t *testing.T) {
	for _, tc := range []struct {
		name  string
		token bool
		end   func(ctx context.Context, s *site) error
		want  string
	}{
		{"token revoked", true, revokeToken, "the token is unknown"},
		{"token expired", true, func(context.Context, *site) error { time.Sleep(time.Hour); return nil }, "the token is unknown"},
		{"its maker deleted", true, deleteAlice, "the token is unknown"},
		{"account deleted", false, deleteAlice, "the session has ended"},
		{"account changed", false, lowerAlice, "the session has ended"},
		{"session too old", false, func(context.Context, *site) error { time.Sleep(sessionLifetime); return nil }, "the session has ended"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSiteIn(t)
				s.addAccount(t, "root", adminv1.Role_ROLE_ADMIN)
				c := s.signedIn(t, "alice", adminv1.Role_ROLE_ADMIN)
				if tc.token {
					expires := time.Now().Add(time.Hour)
					c = s.program(c.addToken(t, "deploy", adminv1.Role_ROLE_VIEWER, &expires))
				}
				bystander := s.local().watch(t)
				ended := c.watch(t)
				if err := tc.end(t.Context(), s); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				select {
				case err := <-ended:
					if connect.CodeOf(err) != connect.CodeUnauthenticated || !strings.Contains(err.Error(), tc.want) {
						t.Errorf("ended with %v, want %s", err, tc.want)
					}
				default:
					t.Error("the stream goes on")
				}
				select {
				case err := <-bystander:
					t.Errorf("the stream of another ended with %v", err)
				default:
				}
				if open := len(s.streams.open); open != 1 {
					t.Errorf("%d streams are known, want that of the other", open)
				}
			})
		})
	}
}

func TestStreamEndsWithItsSession(t *testing.T) {
	s := newSite(t)
	b := s.signedIn(t, "alice", adminv1.Role_ROLE_ADMIN)
	ended := b.watch(t)
	if err := b.signOut(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; connect.CodeOf(err) != connect.CodeUnauthenticated {
		t.Errorf("ended with %v", err)
	}
	// Between the door and the stream the session may end, too.
	_, _, err := s.streams.enter(t.Context(), Identity{Actor: "alice", session: sessionKey("gone")})
	if connect.CodeOf(err) != connect.CodeUnauthenticated || len(s.streams.open) != 0 {
		t.Errorf("entered with %v; %d streams are known", err, len(s.streams.open))
	}
}

// restorer stands for what takes a stream and tells in the end what it changed.
type restorer struct {
	adminv1.UnimplementedNodeServiceHandler
	noted []*adminv1.Change
	err   error
}

func (r *restorer) Restore(ctx context.Context, stream *connect.ClientStream[adminv1.RestoreRequest]) (*connect.Response[adminv1.WriteResponse], error) {
	for stream.Receive() {
	}
	NoteChanges(ctx, r.noted)
	return connect.NewResponse(&adminv1.WriteResponse{}), r.err
}

func TestAuditHasStreams(t *testing.T) {
	s := newSite(t)
	service := &restorer{noted: []*adminv1.Change{{Action: "restore", Ref: &adminv1.Ref{Kind: "Backend", Name: "a"}}}}
	mux := http.NewServeMux()
	mux.Handle(adminv1.NewNodeServiceHandler(service, s.HandlerOptions()...))
	server := httptest.NewServer(s.Guard(mux))
	defer server.Close()
	token := s.addToken(t, adminv1.Role_ROLE_ADMIN)
	restore := func(dryRun bool) error {
		stream := adminv1.NewNodeServiceClient(server.Client(), server.URL).Restore(t.Context())
		stream.RequestHeader().Set("Authorization", "Bearer "+token)
		if err := stream.Send(&adminv1.RestoreRequest{Reason: "a bad day", DryRun: dryRun}); err != nil {
			return err
		}
		if err := stream.Send(&adminv1.RestoreRequest{Chunk: []byte("x"), Reason: "not this"}); err != nil {
			return err
		}
		_, err := stream.CloseAndReceive()
		return err
	}
	if err := restore(false); err != nil {
		t.Fatal(err)
	}
	line := s.lines(t)[0]
	if line.Action != "Restore" || line.Reason != "a bad day" || len(line.Changes) != 1 || line.Refs[0].Name != "a" || line.Refused {
		t.Errorf("audit line %v", line)
	}
	if err := restore(true); err != nil || len(s.lines(t)) != 2 {
		t.Errorf("trying it: %v, %d lines", err, len(s.lines(t)))
	}
	service.err = connect.NewError(connect.CodeInvalidArgument, errDisk)
	if err := restore(false); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Error(err)
	}
	if line := s.lines(t)[0]; !line.Refused || line.Why != errDisk.Error() {
		t.Errorf("audit line %v", line)
	}
}

func TestAccessTidiesUntilItEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSiteIn(t)
		s.signedIn(t, "alice", adminv1.Role_ROLE_VIEWER)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		time.Sleep(sessionIdle + tidyEvery)
		synctest.Wait()
		if strings.Contains(s.records.state(), "session/") {
			t.Error("a session that is over is kept")
		}
		for range 30 {
			s.program("").get(t.Context())
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if line := s.lines(t)[0]; line.Why != "20 more refusals came too fast to have a line each" {
			t.Errorf("audit line %v", line)
		}
	})
}
