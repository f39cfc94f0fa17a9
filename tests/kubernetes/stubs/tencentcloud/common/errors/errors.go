// Package errors has the kind of error that Tencent's cloud answers with.
package errors

type TencentCloudSDKError struct{ Message string }

func (e *TencentCloudSDKError) Error() string { return e.Message }
