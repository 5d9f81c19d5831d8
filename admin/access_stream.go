package admin

import (
	"context"
	"sync"

	"connectrpc.com/connect"
)

// streams are the open ones of the API. Who is no more allowed to call is not
// allowed to listen on, either: a stream ends with the credentials by which it was
// opened.
type streams struct {
	valid func(Identity) (bool, error) // asks the records

	mu   sync.Mutex // guards the field below
	open map[*openStream]struct{}
}

type openStream struct {
	Identity
	end context.CancelCauseFunc
}

func newStreams(valid func(Identity) (bool, error)) *streams {
	return &streams{valid: valid, open: map[*openStream]struct{}{}}
}

// enter returns the context of a stream, which ends when the credentials do.
func (s *streams) enter(ctx context.Context, id Identity) (context.Context, func(), error) {
	ctx, end := context.WithCancelCause(ctx)
	stream := &openStream{id, end}
	s.mu.Lock()
	s.open[stream] = struct{}{}
	s.mu.Unlock()
	stop := func() {}
	if !id.until.IsZero() {
		timed, cancel := context.WithDeadlineCause(ctx, id.until, id.ended())
		ctx, stop = timed, cancel
	}
	leave := func() {
		stop()
		end(nil)
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.open, stream)
	}
	// The credentials may have ended between Guard and here.
	valid, err := s.valid(id)
	if err == nil && !valid {
		err = connect.NewError(connect.CodeUnauthenticated, id.ended())
	}
	if err != nil {
		leave()
		return nil, nil, err
	}
	return ctx, leave, nil
}

// ended is the error of credentials that count no more.
func (id Identity) ended() error {
	if id.token != "" {
		return errTokenUnknown
	}
	return errSessionEnded
}

// end ends the streams that were opened by credentials of that kind.
func (s *streams) end(concerned func(Identity) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for stream := range s.open {
		if concerned(stream.Identity) {
			stream.end(stream.ended())
		}
	}
}

// stillValid tells whether the credentials are in the records.
func (a *Access) stillValid(id Identity) (valid bool, err error) {
	key := id.session
	if key == "" {
		key = id.token
	}
	if key == "" {
		return true, nil // by the socket
	}
	err = a.records.View(func(tx RecordsTx) error {
		_, valid, err = tx.Get(key)
		return err
	})
	return valid, err
}
