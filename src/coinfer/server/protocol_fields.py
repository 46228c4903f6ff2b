"""Fields of the messages of the Open Inference Protocol over gRPC, as Triton speaks it.

Facts only: names, numbers and types, as `descriptors.Messages` reads them. Of a `ModelConfig`
there is what `config.pbtxt` may have and what clients read of a model's configuration.
"""

from __future__ import annotations

__all__ = ["CONFIG_ENUMS", "CONFIG_FIELDS", "HEALTH_ENUMS", "HEALTH_FIELDS", "PROTOCOL_FIELDS"]

_NAME_VERSION = "name:1:string version:2:string"
_REGION = "name:1:string key:2:string offset:3:uint64 byte_size:4:uint64"
_TENSOR = (
    "name:1:string datatype:2:string shape:3:int64* parameters:4:string>InferParameter "
    "contents:5:InferTensorContents"
)
_CALL = "model_name:1:string model_version:2:string id:3:string parameters:4:string>InferParameter "
_REPOSITORY = (
    "repository_name:1:string model_name:2:string parameters:3:string>ModelRepositoryParameter"
)

PROTOCOL_FIELDS = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "live:1:bool",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "ready:1:bool",
    "ModelReadyRequest": _NAME_VERSION,
    "ModelReadyResponse": "ready:1:bool",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "name:1:string version:2:string extensions:3:string*",
    "ModelMetadataRequest": _NAME_VERSION,
    "ModelMetadataResponse": (
        "name:1:string versions:2:string* platform:3:string "
        "inputs:4:ModelMetadataResponse.TensorMetadata* "
        "outputs:5:ModelMetadataResponse.TensorMetadata*"
    ),
    "ModelMetadataResponse.TensorMetadata": "name:1:string datatype:2:string shape:3:int64*",
    "InferParameter": (
        "bool_param:1:bool@parameter_choice int64_param:2:int64@parameter_choice "
        "string_param:3:string@parameter_choice double_param:4:double@parameter_choice "
        "uint64_param:5:uint64@parameter_choice"
    ),
    "InferTensorContents": (
        "bool_contents:1:bool* int_contents:2:int32* int64_contents:3:int64* "
        "uint_contents:4:uint32* uint64_contents:5:uint64* fp32_contents:6:float* "
        "fp64_contents:7:double* bytes_contents:8:bytes*"
    ),
    "ModelInferRequest": _CALL
    + "inputs:5:ModelInferRequest.InferInputTensor* "
    + "outputs:6:ModelInferRequest.InferRequestedOutputTensor* raw_input_contents:7:bytes*",
    "ModelInferRequest.InferInputTensor": _TENSOR,
    "ModelInferRequest.InferRequestedOutputTensor": (
        "name:1:string parameters:2:string>InferParameter"
    ),
    "ModelInferResponse": _CALL
    + "outputs:5:ModelInferResponse.InferOutputTensor* raw_output_contents:6:bytes*",
    "ModelInferResponse.InferOutputTensor": _TENSOR,
    "ModelStreamInferResponse": "error_message:1:string infer_response:2:ModelInferResponse",
    "ModelConfigRequest": _NAME_VERSION,
    "ModelConfigResponse": "config:1:ModelConfig",
    "ModelStatisticsRequest": _NAME_VERSION,
    "StatisticDuration": "count:1:uint64 ns:2:uint64",
    "InferStatistics": (
        "success:1:StatisticDuration fail:2:StatisticDuration queue:3:StatisticDuration "
        "compute_input:4:StatisticDuration compute_infer:5:StatisticDuration "
        "compute_output:6:StatisticDuration cache_hit:7:StatisticDuration "
        "cache_miss:8:StatisticDuration"
    ),
    "InferResponseStatistics": (
        "compute_infer:1:StatisticDuration compute_output:2:StatisticDuration "
        "success:3:StatisticDuration fail:4:StatisticDuration empty_response:5:StatisticDuration "
        "cancel:6:StatisticDuration"
    ),
    "InferBatchStatistics": (
        "batch_size:1:uint64 compute_input:2:StatisticDuration compute_infer:3:StatisticDuration "
        "compute_output:4:StatisticDuration"
    ),
    "MemoryUsage": "type:1:string id:2:int64 byte_size:3:uint64",
    "ModelStatistics": _NAME_VERSION
    + " last_inference:3:uint64 inference_count:4:uint64 execution_count:5:uint64 "
    + "inference_stats:6:InferStatistics batch_stats:7:InferBatchStatistics* "
    + "memory_usage:8:MemoryUsage* response_stats:9:string>InferResponseStatistics",
    "ModelStatisticsResponse": "model_stats:1:ModelStatistics*",
    "ModelRepositoryParameter": (
        "bool_param:1:bool@parameter_choice int64_param:2:int64@parameter_choice "
        "string_param:3:string@parameter_choice bytes_param:4:bytes@parameter_choice"
    ),
    "RepositoryIndexRequest": "repository_name:1:string ready:2:bool",
    "RepositoryIndexResponse": "models:1:RepositoryIndexResponse.ModelIndex*",
    "RepositoryIndexResponse.ModelIndex": _NAME_VERSION + " state:3:string reason:4:string",
    "RepositoryModelLoadRequest": _REPOSITORY,
    "RepositoryModelLoadResponse": "",
    "RepositoryModelUnloadRequest": _REPOSITORY,
    "RepositoryModelUnloadResponse": "",
    "SystemSharedMemoryStatusRequest": "name:1:string",
    "SystemSharedMemoryStatusResponse": (
        "regions:1:string>SystemSharedMemoryStatusResponse.RegionStatus"
    ),
    "SystemSharedMemoryStatusResponse.RegionStatus": _REGION,
    "SystemSharedMemoryRegisterRequest": _REGION,
    "SystemSharedMemoryRegisterResponse": "",
    "SystemSharedMemoryUnregisterRequest": "name:1:string",
    "SystemSharedMemoryUnregisterResponse": "",
    "CudaSharedMemoryStatusRequest": "name:1:string",
    "CudaSharedMemoryStatusResponse": (
        "regions:1:string>CudaSharedMemoryStatusResponse.RegionStatus"
    ),
    "CudaSharedMemoryStatusResponse.RegionStatus": (
        "name:1:string device_id:2:uint64 byte_size:3:uint64"
    ),
    "CudaSharedMemoryRegisterRequest": (
        "name:1:string raw_handle:2:bytes device_id:3:int64 byte_size:4:uint64"
    ),
    "CudaSharedMemoryRegisterResponse": "",
    "CudaSharedMemoryUnregisterRequest": "name:1:string",
    "CudaSharedMemoryUnregisterResponse": "",
    "TraceSettingRequest": (
        "settings:1:string>TraceSettingRequest.SettingValue model_name:2:string"
    ),
    "TraceSettingRequest.SettingValue": "value:1:string*",
    "TraceSettingResponse": "settings:1:string>TraceSettingResponse.SettingValue",
    "TraceSettingResponse.SettingValue": "value:1:string*",
    "LogSettingsRequest": "settings:1:string>LogSettingsRequest.SettingValue",
    "LogSettingsRequest.SettingValue": (
        "bool_param:1:bool@parameter_choice uint32_param:2:uint32@parameter_choice "
        "string_param:3:string@parameter_choice"
    ),
    "LogSettingsResponse": "settings:1:string>LogSettingsResponse.SettingValue",
    "LogSettingsResponse.SettingValue": (
        "bool_param:1:bool@parameter_choice uint32_param:2:uint32@parameter_choice "
        "string_param:3:string@parameter_choice"
    ),
}
"""Messages of `inference.GRPCInferenceService`."""

CONFIG_FIELDS = {
    "ModelInstanceGroup": (
        "name:1:string kind:4:ModelInstanceGroup.Kind count:2:int32 gpus:3:int32* "
        "passive:7:bool host_policy:9:string profile:5:string*"
    ),
    "ModelTensorReshape": "shape:1:int64*",
    "ModelInput": (
        "name:1:string data_type:2:DataType format:3:ModelInput.Format dims:4:int64* "
        "reshape:5:ModelTensorReshape is_shape_tensor:6:bool allow_ragged_batch:7:bool "
        "optional:8:bool is_non_linear_format_io:9:bool"
    ),
    "ModelOutput": (
        "name:1:string data_type:2:DataType dims:3:int64* reshape:5:ModelTensorReshape "
        "label_filename:4:string is_shape_tensor:6:bool is_non_linear_format_io:7:bool"
    ),
    "ModelVersionPolicy": (
        "latest:1:ModelVersionPolicy.Latest@policy_choice "
        "all:2:ModelVersionPolicy.All@policy_choice "
        "specific:3:ModelVersionPolicy.Specific@policy_choice"
    ),
    "ModelVersionPolicy.Latest": "num_versions:1:uint32",
    "ModelVersionPolicy.All": "",
    "ModelVersionPolicy.Specific": "versions:1:int64*",
    "ModelQueuePolicy": (
        "timeout_action:1:ModelQueuePolicy.TimeoutAction default_timeout_microseconds:2:uint64 "
        "allow_timeout_override:3:bool max_queue_size:4:uint32"
    ),
    "ModelDynamicBatching": (
        "preferred_batch_size:1:int32* max_queue_delay_microseconds:2:uint64 "
        "preserve_ordering:3:bool priority_levels:4:uint64 default_priority_level:5:uint64 "
        "default_queue_policy:6:ModelQueuePolicy "
        "priority_queue_policy:7:uint64>ModelQueuePolicy"
    ),
    "ModelEnsembling": "step:1:ModelEnsembling.Step* max_inflight_requests:2:uint32",
    "ModelEnsembling.Step": (
        "model_name:1:string model_version:2:int64 input_map:3:string>string "
        "output_map:4:string>string model_namespace:5:string"
    ),
    "ModelParameter": "string_value:1:string",
    "ModelWarmup": (
        "name:1:string batch_size:2:uint32 inputs:3:string>ModelWarmup.Input count:4:uint32"
    ),
    "ModelWarmup.Input": (
        "data_type:1:DataType dims:2:int64* zero_data:3:bool@input_data_type "
        "random_data:4:bool@input_data_type input_data_file:5:string@input_data_type"
    ),
    "ModelTransactionPolicy": "decoupled:1:bool",
    "ModelConfig": (
        "name:1:string platform:2:string backend:17:string runtime:25:string "
        "version_policy:3:ModelVersionPolicy max_batch_size:4:int32 input:5:ModelInput* "
        "output:6:ModelOutput* dynamic_batching:11:ModelDynamicBatching@scheduling_choice "
        "ensemble_scheduling:15:ModelEnsembling@scheduling_choice "
        "instance_group:7:ModelInstanceGroup* default_model_filename:8:string "
        "metric_tags:10:string>string parameters:14:string>ModelParameter "
        "model_warmup:16:ModelWarmup* model_transaction_policy:19:ModelTransactionPolicy"
    ),
}
"""Messages of a model's configuration."""

CONFIG_ENUMS = {
    "DataType": (
        "TYPE_INVALID",
        "TYPE_BOOL",
        "TYPE_UINT8",
        "TYPE_UINT16",
        "TYPE_UINT32",
        "TYPE_UINT64",
        "TYPE_INT8",
        "TYPE_INT16",
        "TYPE_INT32",
        "TYPE_INT64",
        "TYPE_FP16",
        "TYPE_FP32",
        "TYPE_FP64",
        "TYPE_STRING",
        "TYPE_BF16",
    ),
    "ModelInstanceGroup.Kind": ("KIND_AUTO", "KIND_GPU", "KIND_CPU", "KIND_MODEL"),
    "ModelInput.Format": ("FORMAT_NONE", "FORMAT_NHWC", "FORMAT_NCHW"),
    "ModelQueuePolicy.TimeoutAction": ("REJECT", "DELAY"),
}
"""Enums of a model's configuration."""

HEALTH_FIELDS = {
    "HealthCheckRequest": "service:1:string",
    "HealthCheckResponse": "status:1:HealthCheckResponse.ServingStatus",
}
"""Messages of `grpc.health.v1.Health`."""

HEALTH_ENUMS = {
    "HealthCheckResponse.ServingStatus": ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
}
"""Enums of `grpc.health.v1.Health`."""
