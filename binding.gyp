# The thin door for node-gyp and prebuildify: CMakeLists.txt is the build; this runs it and takes its result.
{
  'targets': [
    {
      'target_name': 'zeroshard',
      'type': 'none',
      'actions': [
        {
          'action_name': 'cmake',
          'inputs': ['CMakeLists.txt'],
          'outputs': ['<(PRODUCT_DIR)/zeroshard.node'],
          'action': ['node', 'scripts/native-build.mjs', '<(PRODUCT_DIR)'],
        },
      ],
    },
  ],
}
