package admin

import (
	"context"
	"errors"
	"path"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	adminv1 "sluice/admin/v1"
)

// maxMessageBytes is the longest message that is read: the text of some 20,000
// routes.
const maxMessageBytes = 32 << 20

// HandlerOptions are those of every service of the API: the interceptor that
// refuses and keeps the book, and a bound on the size of a message.
func (a *Access) HandlerOptions() []connect.HandlerOption {
	return []connect.HandlerOption{
		connect.WithInterceptors(a.Interceptor()),
		connect.WithReadMaxBytes(maxMessageBytes),
	}
}

// Interceptor refuses what the caller's role does not allow, and writes the audit
// line of every call that changes something or was refused.
func (a *Access) Interceptor() connect.Interceptor { return interceptor{a} }

type interceptor struct{ access *Access }

func (i interceptor) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next // of clients, which have no use for it
}

func (i interceptor) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, request connect.AnyRequest) (connect.AnyResponse, error) {
		call := i.access.newCall(ctx, request.Spec())
		if message, ok := request.Any().(proto.Message); ok {
			call.received(message)
		}
		if err := call.authorise(); err != nil {
			return nil, err
		}
		if err := call.again(); err != nil {
			return nil, err
		}
		response, err := next(ctx, request)
		if err != nil {
			return nil, call.ended(err)
		}
		if message, ok := response.Any().(proto.Message); ok {
			call.answered(message)
		}
		return response, call.ended(nil)
	}
}

func (i interceptor) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		call := i.access.newCall(ctx, conn.Spec())
		if err := call.authorise(); err != nil {
			return err
		}
		ctx, leave, err := i.access.streams.enter(ctx, call.identity())
		if err != nil {
			return call.ended(err)
		}
		defer leave()
		if err := call.again(); err != nil {
			return err
		}
		err = next(ctx, &observedConn{conn, call})
		if cause := context.Cause(ctx); errors.Is(cause, errSessionEnded) || errors.Is(cause, errTokenUnknown) {
			err = connect.NewError(connect.CodeUnauthenticated, cause)
		}
		return call.ended(err)
	}
}

// observedConn tells the audit line what passes. Its methods belong to the handler's
// goroutines; of those that receive there is one, as of those that send.
type observedConn struct {
	connect.StreamingHandlerConn
	call *call
}

func (c *observedConn) Receive(message any) error {
	err := c.StreamingHandlerConn.Receive(message)
	if m, ok := message.(proto.Message); ok && err == nil {
		c.call.received(m)
	}
	return err
}

func (c *observedConn) Send(message any) error {
	if m, ok := message.(proto.Message); ok {
		c.call.answered(m)
	}
	return c.StreamingHandlerConn.Send(message)
}

// call is one call of the API on its way to the audit log.
type call struct {
	access    *Access
	ctx       context.Context
	caller    *caller // nil when Guard was not asked
	procedure string
	changes   bool // the procedure may change something
	dryRun    bool
	begun     bool // something was received
	line      *adminv1.AuditEntry
}

func (a *Access) newCall(ctx context.Context, spec connect.Spec) *call {
	c := callerFrom(ctx)
	if c != nil {
		c.met = true
	}
	return &call{
		access: a, ctx: ctx, caller: c, procedure: spec.Procedure,
		changes: spec.IdempotencyLevel != connect.IdempotencyNoSideEffects,
		line:    auditLine(c, path.Base(spec.Procedure)),
	}
}

func (c *call) identity() Identity {
	if c.caller == nil {
		return Identity{}
	}
	return c.caller.Identity
}

// received notes what the call is about. Of a stream the first message says it.
func (c *call) received(m proto.Message) {
	if !c.changes || c.begun {
		return
	}
	c.begun = true
	c.dryRun = isDryRun(m)
	describeRequest(c.line, m)
}

func (c *call) answered(m proto.Message) {
	if c.changes {
		describeChanges(c.line, changesOf(m))
	}
}

// authorise refuses, with a line in the audit log, what the caller may not do.
func (c *call) authorise() error {
	err := authorise(c.caller, c.procedure)
	if err == nil {
		return nil
	}
	return c.refused(c.access.public(err, c.procedure))
}

// again asks once more, of a call that may change something, what Guard asked before
// the message was read: that may be a minute ago, and the right has ended since.
func (c *call) again() error {
	if !c.changes || permissions[c.procedure].open {
		return nil
	}
	if err := c.access.identifyAgain(c.caller); err != nil {
		return c.refused(c.access.public(err, c.procedure))
	}
	c.line.Role = roleName(c.caller.Role)
	return c.authorise()
}

// ended writes the line of a call that was let in, and returns the error as the
// client may know it.
func (c *call) ended(err error) error {
	if err != nil {
		err = c.access.public(err, c.procedure)
	}
	if !c.changes || c.dryRun || c.settled() {
		return err
	}
	c.noted()
	if err != nil {
		return c.refused(err)
	}
	if c.line.Actor != "" { // what nobody can do changes nothing
		c.access.audit.write(c.line)
	}
	return nil
}

// settled tells whether the handler has seen to the lines itself.
func (c *call) settled() bool {
	if c.caller == nil {
		return false
	}
	n := &c.caller.note
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.settled
}

// noted adds what the handler told.
func (c *call) noted() {
	if c.caller == nil {
		return
	}
	n := &c.caller.note
	n.mu.Lock()
	defer n.mu.Unlock()
	describeChanges(c.line, n.changes)
	if n.actor != "" {
		c.line.Actor, c.line.Role = n.actor, roleName(n.role)
	}
}

func (c *call) refused(err error) error {
	c.line.Refused, c.line.Why = true, why(err)
	c.access.audit.write(c.line)
	return err
}
