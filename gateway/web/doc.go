// Package web translates gRPC-Web to gRPC and back, and says what pages of other
// origins may do (CORS).
//
// gRPC-Web is gRPC with its trailers in the body, as a last frame, and in its text
// form with the body in base64. Where a comment says PROTOCOL-WEB, it means the
// document of that name in the gRPC specification.
package web
