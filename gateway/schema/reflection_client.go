package schema

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// The methods of reflection. The two versions have the same messages.
const (
	ReflectionV1      = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
	ReflectionV1Alpha = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
)

// MaxAnswer bounds the messages of one backend's reflection together, in bytes.
const MaxAnswer = maxBytes

// Stream is a bidirectional RPC of messages without their prefix. One goroutine uses it.
type Stream interface {
	// Send sends a message, which it copies. It returns io.EOF when the RPC has ended;
	// Receive then tells how.
	Send(message []byte) error
	// Receive returns the next message, valid until the next call, and io.EOF after the
	// last one of an RPC that ended well. A message of more than MaxAnswer is an error.
	Receive() ([]byte, error)
	// Close gives up what has not ended. It must be called.
	Close()
}

// Opener begins an RPC with a backend, which is known by its key. The context bounds all
// of it: Send and Receive return when it is done. An RPC that ends with UNIMPLEMENTED has
// an error that wraps ErrUnimplemented, from whichever function.
type Opener func(ctx context.Context, backend, method string) (Stream, error)

// ErrUnimplemented is the status UNIMPLEMENTED.
var ErrUnimplemented = errors.New("unimplemented")

// maxQuestions bounds what one backend is asked, and outstanding how much of it at once:
// enough to hide the way there and back, few enough for the smallest window.
const (
	maxQuestions = 2*maxFiles + maxServices
	outstanding  = 8
)

// learn asks a backend for its schema, in the version of the protocol that it has.
func learn(ctx context.Context, open Opener, backend string) (s *Schema, version string, err error) {
	version = "v1"
	s, err = learnVersion(ctx, open, backend, ReflectionV1)
	if errors.Is(err, ErrUnimplemented) {
		version = "v1alpha"
		s, err = learnVersion(ctx, open, backend, ReflectionV1Alpha)
	}
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = fmt.Errorf("not done within %v: %w", learnTimeout, err)
	}
	return s, version, err
}

func learnVersion(ctx context.Context, open Opener, backend, method string) (*Schema, error) {
	stream, err := open(ctx, backend, method)
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	l := &lesson{stream: stream, files: make(map[string]*descriptorpb.FileDescriptorProto), asked: make(map[question]bool)}
	services, err := l.listServices()
	if err != nil {
		return nil, err
	}
	if err := l.askForServices(services); err != nil {
		return nil, err
	}
	return l.schema(services)
}

// lesson is the conversation with one backend's reflection. Nothing that it says is
// trusted: files count by their own names, whatever they answer.
type lesson struct {
	stream   Stream
	received int // bytes
	elements elementCount

	files map[string]*descriptorpb.FileDescriptorProto
	set   descriptorpb.FileDescriptorSet // the same, in the order that they came in
	// declared are the services in the files.
	declared map[string]bool

	asked map[question]bool
	queue []question
	sent  []question // and not answered
	// faults are what could not be had, which need not be fatal.
	faults []error
}

// question is what is asked for: the file of a service, or a file by name.
type question struct{ service, file string }

func (q question) String() string {
	if q.service != "" {
		return fmt.Sprintf("service %q", q.service)
	}
	return fmt.Sprintf("file %q", q.file)
}

func (l *lesson) faultf(format string, args ...any) {
	if len(l.faults) < maxFaults {
		l.faults = append(l.faults, shortened(fmt.Errorf(format, args...)))
	}
}

// listServices are the services that the backend says it has, but for reflection.
func (l *lesson) listServices() (map[string]bool, error) {
	list, err := l.serviceList()
	if err != nil {
		return nil, fmt.Errorf("listing services: %w", err)
	}
	services := make(map[string]bool)
	for _, s := range list.GetService() {
		name := s.GetName()
		if !protoreflect.FullName(name).IsValid() {
			l.faultf("service %.100q left out: it is no name of a service", name)
		} else if !strings.HasPrefix(name, "grpc.reflection.") {
			services[name] = true
		}
	}
	return services, nil
}

func (l *lesson) serviceList() (*grpc_reflection_v1.ListServiceResponse, error) {
	err := l.send(&grpc_reflection_v1.ServerReflectionRequest{
		MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{ListServices: "*"},
	})
	if err != nil {
		return nil, err
	}
	answer, err := l.receive()
	if err != nil {
		return nil, err
	}
	if e := answer.GetErrorResponse(); e != nil {
		return nil, answerError(e)
	}
	list := answer.GetListServicesResponse()
	if list == nil {
		return nil, errors.New("the answer is not a list of services")
	}
	if n := len(list.GetService()); n > maxServices {
		return nil, fmt.Errorf("%d services, limit %d", n, maxServices)
	}
	return list, nil
}

// askForServices gets the files of the services and all that they import.
func (l *lesson) askForServices(services map[string]bool) error {
	l.declared = make(map[string]bool)
	for service := range services {
		l.ask(question{service: service})
	}
	for {
		if err := l.sendQueue(); err != nil {
			return err
		}
		if len(l.sent) == 0 {
			break
		}
		if err := l.receiveAnswer(); err != nil {
			return err
		}
	}
	for service := range services {
		if !l.declared[service] && l.asked[question{service: service}] {
			l.faultf("service %q left out: no file that the backend sent declares it", service)
		}
	}
	return nil
}

// ask queues a question that was not asked before.
func (l *lesson) ask(q question) {
	if l.asked[q] {
		return
	}
	if len(l.asked) == maxQuestions {
		l.faultf("%v left out: more than %d questions", q, maxQuestions)
		return
	}
	l.asked[q] = true
	l.queue = append(l.queue, q)
}

// sendQueue sends the next questions, but for those that have been answered meanwhile.
func (l *lesson) sendQueue() error {
	for len(l.queue) > 0 && len(l.sent) < outstanding {
		q := l.queue[0]
		l.queue = l.queue[1:]
		if l.declared[q.service] || l.files[q.file] != nil {
			continue
		}
		request := &grpc_reflection_v1.ServerReflectionRequest{
			MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_FileByFilename{FileByFilename: q.file},
		}
		if q.service != "" {
			request.MessageRequest = &grpc_reflection_v1.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: q.service}
		}
		if err := l.send(request); err != nil {
			return fmt.Errorf("asking for %v: %w", q, err)
		}
		l.sent = append(l.sent, q)
	}
	return nil
}

// receiveAnswer takes the answer to the oldest question.
func (l *lesson) receiveAnswer() error {
	q := l.sent[0]
	l.sent = l.sent[1:]
	answer, err := l.receive()
	if err != nil {
		return fmt.Errorf("asking for %v: %w", q, err)
	}
	if e := answer.GetErrorResponse(); e != nil {
		l.faultf("%v: %w", q, answerError(e))
		return nil
	}
	for _, encoded := range answer.GetFileDescriptorResponse().GetFileDescriptorProto() {
		f := new(descriptorpb.FileDescriptorProto)
		if err := decodeBounded(encoded, f, &l.elements); errors.Is(err, errTooManyElements) {
			return fmt.Errorf("asking for %v: %w", q, err)
		} else if err != nil {
			l.faultf("%v: a file of the answer left out: %w", q, err)
			continue
		}
		if err := l.add(f); err != nil {
			return err
		}
	}
	if q.file != "" && l.files[q.file] == nil {
		l.faultf("file %q: the backend did not send it", q.file)
	}
	return nil
}

// add keeps a file and asks for what it imports. Of several with one name the first
// counts.
func (l *lesson) add(f *descriptorpb.FileDescriptorProto) error {
	name := f.GetName()
	if l.files[name] != nil {
		return nil
	}
	if len(l.files) == maxFiles {
		return fmt.Errorf("more than %d files", maxFiles)
	}
	l.files[name] = f
	l.set.File = append(l.set.File, f)
	for _, s := range f.GetService() {
		l.declared[strings.TrimPrefix(f.GetPackage()+"."+s.GetName(), ".")] = true
	}
	for _, dependency := range f.GetDependency() {
		// What is not UTF-8 cannot be asked for.
		if standardFile(dependency) == nil && utf8.ValidString(dependency) {
			l.ask(question{file: dependency})
		}
	}
	return nil
}

// schema compiles what was learnt.
func (l *lesson) schema(services map[string]bool) (*Schema, error) {
	if len(services) > 0 && len(l.set.GetFile()) == 0 {
		return nil, fmt.Errorf("none of %d services is described: %w", len(services), someOf(l.faults, 0))
	}
	s, err := compile(&l.set, func(service string) bool { return services[service] })
	if err != nil {
		return nil, err
	}
	for _, fault := range l.faults {
		s.faultf("%w", fault)
	}
	return s, nil
}

// send sends a request. When the stream has ended, the reason is what can be received.
func (l *lesson) send(request *grpc_reflection_v1.ServerReflectionRequest) error {
	encoded, err := proto.Marshal(request)
	if err != nil {
		return err // a name that is not UTF-8
	}
	err = l.stream.Send(encoded)
	if !errors.Is(err, io.EOF) {
		return err
	}
	for {
		if _, err := l.receive(); err != nil {
			return err
		}
	}
}

func (l *lesson) receive() (*grpc_reflection_v1.ServerReflectionResponse, error) {
	encoded, err := l.stream.Receive()
	if errors.Is(err, io.EOF) {
		return nil, errors.New("the backend ended the stream before its answer")
	}
	if err != nil {
		return nil, err
	}
	if l.received += len(encoded); l.received > MaxAnswer {
		return nil, fmt.Errorf("answers of more than %d bytes", MaxAnswer)
	}
	answer := new(grpc_reflection_v1.ServerReflectionResponse)
	if err := decodeBounded(encoded, answer, new(elementCount)); err != nil {
		return nil, fmt.Errorf("the answer is not one of reflection: %w", err)
	}
	return answer, nil
}

// answerError is an error that reflection itself told.
func answerError(e *grpc_reflection_v1.ErrorResponse) error {
	const unimplemented, longest = 12, 200
	err := fmt.Errorf("the backend says: %.*q (code %d)", longest, e.GetErrorMessage(), e.GetErrorCode())
	if e.GetErrorCode() == unimplemented {
		return fmt.Errorf("%w: %w", ErrUnimplemented, err)
	}
	return err
}
